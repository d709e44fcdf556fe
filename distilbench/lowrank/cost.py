"""What a cached token costs at each step of decoding, by arithmetic alone: what measured ratios are held against."""

from __future__ import annotations

from distilbench.lowrank.ranks import Ranks
from distilbench.lowrank.shapes import Shapes


def of_token(shapes: Shapes, ranks: Ranks, itemsize: int) -> dict[str, dict[str, float]]:
    """Of one cached token, at one step, mean of a layer; for a batch of one.

    Keys whole: each query head multiplies a key and adds a value. Keys as latents: each is rebuilt, which also writes
    it and reads it again; values are summed as latents by each query head. What does not grow with the cache is left
    out.

    Args:
        ranks: of all projections.
        itemsize: bytes of a number.

    Returns:
        Of `baseline` and `palu` multiplications with an addition (`macs`) and `bytes` that are moved, and `ratio`.
    """
    width, per_head = shapes.kv_heads * shapes.head_dim, shapes.query_heads * shapes.head_dim
    keys, values = (
        sum(sum(given) for name, given in ranks.items() if name.endswith(kind)) / shapes.layers
        for kind in ("k_proj", "v_proj")
    )
    heads_per_group = shapes.query_heads / shapes.groups
    baseline = {"macs": 2 * per_head, "bytes": 2 * width * itemsize}
    palu = {
        "macs": keys * shapes.group_width + per_head + heads_per_group * values,
        "bytes": (keys + values + 2 * width) * itemsize,
    }
    return {"baseline": baseline, "palu": palu, "ratio": {name: palu[name] / baseline[name] for name in baseline}}
