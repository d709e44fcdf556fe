// Makes each static chart of the page interactive, from the data beside it. Without this script the picture stays.
(() => {
  const draw = async (data) => {
    const box = data.previousElementSibling;
    const spec = JSON.parse(data.textContent);
    const room = box.clientWidth;
    if (spec.layer && typeof spec.width === "number") { // a facet keeps its size, and scrolls where it is too wide
      spec.width = Math.min(spec.width + 80, room);
      spec.autosize = { type: "fit-x", contains: "padding" };
    }
    const live = document.createElement("div");
    live.hidden = true;
    box.append(live);
    await window.vegaEmbed(live, spec, { mode: "vega-lite", renderer: "svg", actions: false });
    box.querySelectorAll(":scope > svg").forEach((still) => still.remove());
    live.hidden = false;
    box.dataset.interactive = "true";
  };
  const start = () => {
    document.querySelectorAll("script.db-chart-data").forEach((data) => draw(data));
    // The theme's arrows in the list of pages have no name for those who cannot see them.
    document.querySelectorAll("nav summary").forEach((arrow) => arrow.setAttribute("aria-label", "pages below"));
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
