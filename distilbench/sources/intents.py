"""The embedded intents: commands to a house in 23 classes, generated here from a real grammar. No person said them.

The grammar is the English one of Home Assistant (package home-assistant-intents, Apache-2.0), which its developers
wrote to understand spoken commands; `hassil`, their parser, reads it. A sentence is a random walk through a template of
its intent: one of the alternatives, an optional part or not, a value from a list. Names of rooms, devices and things,
which the grammar leaves to the house, come from the lists below.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections import Counter
from typing import Any

from distilbench.errors import DataError, ModelError
from distilbench.sources.embedded_text import EmbeddedText, Sentence, normalise, split_of
from distilbench.sources.packages import Package, fetch_package

GRAMMAR = Package(
    "home-assistant-intents==2026.10.27",
    "home_assistant_intents-2026.10.27-py3-none-any.whl",
    "256eb1e4fc6e6f4943d0ba4e089c9639d74d0e9d62ccddeb7148bc168de55e40",
    binary=True,
    megabytes=1,
)
SEED, PER_INTENT, DRAWS = 17, 160, 4000  # distinct sentences per intent, and walks that may be tried for them
LABELS = (
    "HassBroadcast", "HassCancelTimer", "HassClimateGetTemperature", "HassClimateSetFanMode",
    "HassClimateSetTemperature", "HassDecreaseTimer", "HassFanSetSpeed", "HassGetState", "HassIncreaseTimer",
    "HassLightSet", "HassMediaNext", "HassMediaPause", "HassMediaPrevious", "HassMediaSearchAndPlay",
    "HassMediaUnpause", "HassSetPosition", "HassSetVolume", "HassSetVolumeRelative", "HassShoppingListAddItem",
    "HassStartTimer", "HassTimerStatus", "HassTurnOff", "HassTurnOn",
)  # fmt: skip
ROOMS = ("kitchen", "living room", "bedroom", "bathroom", "office", "garage", "hallway", "attic", "nursery", "basement")
#: What the grammar leaves to the house, by the name of its list; `{name}` by the kind of device where it is told.
VALUES = {
    "area": ROOMS,
    "floor": ("ground", "first", "second", "upper"),
    "message": (
        "dinner is ready", "the taxi is here", "it is time to leave", "breakfast in ten minutes", "the film begins",
        "somebody is at the door", "please come down", "the washing is done", "lunch is on the table", "good night",
        "the dog needs a walk", "we leave at noon", "happy birthday", "bring an umbrella", "grandma is calling",
        "the bus comes soon", "turn the music down please", "homework first", "the cake is done", "time for bed",
    ),
    "search_query": (
        "some jazz", "the evening news", "abbey road", "quiet piano", "a podcast on history", "morning songs",
        "the blue album", "rain sounds", "classic rock", "the late show", "summer hits", "a cello suite",
    ),
    "shopping_list_item": (
        "milk", "eggs", "brown bread", "apples", "olive oil", "coffee", "green tea", "rice", "tomatoes", "cheese",
        "batteries", "dish soap", "paper towels", "oranges", "butter", "flour", "pasta", "onions", "honey", "salt",
    ),
    "timer_name": ("pizza", "tea", "laundry", "egg", "workout", "bread", "homework", "oven"),
    "timer_command": (
        "turn off the lights", "open the blinds", "lock the front door", "stop the music", "start the fan",
        "turn on the heating", "close the garage",
    ),
    "zone": ("work", "school", "the gym", "home"),
    "name": ("coffee machine", "heater", "desk lamp", "garden pump", "christmas tree", "router", "television"),
    "name light": ("ceiling light", "reading lamp", "night light", "porch light", "desk lamp", "floor lamp"),
    "name fan": ("ceiling fan", "desk fan", "tower fan", "exhaust fan"),
    "name cover": ("left curtain", "garage door", "kitchen blind", "balcony shutter", "patio awning"),
    "name media_player": ("television", "kitchen speaker", "record player", "sound bar", "bedroom radio"),
    "name climate": ("thermostat", "air conditioner", "radiator", "heat pump"),
    "name lock": ("front door", "back door", "cellar door", "garden gate"),
    "name person": ("anna", "ben", "clara", "david"),
    "name sensor": ("garden thermometer", "power meter", "outdoor humidity", "water meter"),
    "name vacuum": ("robot vacuum", "dusty", "upstairs vacuum"),
    "name valve": ("garden valve", "sprinkler valve", "water main"),
}  # fmt: skip


def sentences() -> list[Sentence]:
    """All sentences, intent by intent, without any that two intents can mean; the same ones on every machine."""
    grammar = _grammar()
    drawn = {name: _of_intent(grammar, name) for name in LABELS}
    meanings = Counter(normalise(text) for texts in drawn.values() for text in texts)
    return [
        (f"{name}-{number:03d}", text, label, split_of(text))
        for label, (name, texts) in enumerate(drawn.items())
        for number, text in enumerate(texts)
        if meanings[normalise(text)] == 1
    ]


def _grammar() -> Any:
    """The templates, parsed.

    Raises:
        ModelError: the parser is not installed.
        DataError: the package does not hold them.
    """
    try:
        from hassil.intents import Intents
    except ImportError as error:
        raise ModelError(f"the embedded intents need hassil, which parses their grammar: {error}") from None
    wheel = fetch_package(GRAMMAR)
    try:
        with zipfile.ZipFile(wheel) as packed:
            return Intents.from_dict(json.loads(packed.read("home_assistant_intents/data/en.json")))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{wheel} does not hold the English grammar: {error}") from error


def _of_intent(grammar: Any, name: str) -> list[str]:
    """Distinct sentences of one intent, in the order in which they were drawn."""
    templates = [(data, template) for data in grammar.intents[name].data for template in data.sentences]
    chance, found = random.Random(f"{SEED} {name}"), {}
    for _ in range(DRAWS):
        data, template = chance.choice(templates)
        rules = grammar.expansion_rules | (data.expansion_rules or {})
        walk = _Walk(chance, rules, grammar.slot_lists | (data.slot_lists or {}), _domain(data))
        text = " ".join(walk.through(template.expression).split())
        found.setdefault(normalise(text), text)
        if len(found) == PER_INTENT:
            break
    return list(found.values())


def _domain(data: Any) -> str:
    """The kind of device that a template is about, where it tells."""
    told = (data.requires_context or {}).get("domain", "")
    return told if isinstance(told, str) else str(next(iter(told), ""))


class _Walk:
    """A random walk through the expressions of `hassil`."""

    def __init__(self, chance: random.Random, rules: dict[str, Any], lists: dict[str, Any], domain: str) -> None:
        self.chance, self.rules, self.lists, self.domain = chance, rules, lists, domain

    def through(self, expression: Any) -> str:
        """One of the texts that an expression stands for."""
        kind = type(expression).__name__
        if kind == "TextChunk":
            return expression.original_text
        if kind == "Alternative":
            return self.through(self.chance.choice(expression.items))
        if kind == "Permutation":
            return "".join(map(self.through, self.chance.sample(expression.items, len(expression.items))))
        if kind == "RuleReference":
            return self.through(self.rules[expression.rule_name].expression)
        if kind == "ListReference":
            return self._value(expression.list_name)
        return "".join(map(self.through, expression.items))

    def _value(self, name: str) -> str:
        """A value of a list: the house's own, else one of the grammar, or a number in its range."""
        if values := VALUES.get(f"{name} {self.domain}") or VALUES.get(name):
            return self.chance.choice(values)
        known = self.lists[name]
        if hasattr(known, "values"):
            return self.through(self.chance.choice(known.values).text_in)
        return str(self.chance.randrange(known.start, known.stop + 1, known.step))


TEXT = EmbeddedText(
    name="commands in 23 intents, generated from the grammar of home-assistant-intents",
    short="intents",
    labels=LABELS,
    package=GRAMMAR,
    sentences=lambda: sentences(),
    licence="Apache-2.0 (the grammar); the sentences are generated from it here, and no person said them",
    citation="Home Assistant contributors (2026). home-assistant-intents 2026.10.27. Open Home Foundation.",
)
