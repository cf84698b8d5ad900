"""Words that drawn pages are made of."""

from __future__ import annotations

ITEMS = """
milk bread butter cheese eggs coffee tea sugar flour rice pasta apples bananas oranges tomato potato onion garlic
carrots salad yoghurt cream juice water cola beer wine soap towel paper batteries candle pencil notebook stapler
chicken beef salmon tuna shrimp ham bacon muffin bagel croissant sandwich soup pizza burger fries cookie cake donut
pepper salt olive oil honey jam cereal oats nuts raisins chips popcorn chocolate vanilla lemon lime ginger mint
""".split()  # noqa: SIM905

ADJECTIVES = """
org fresh large small red green whole dark light diet family mini extra low fat free best local semi dry
""".split()  # noqa: SIM905

HEADINGS = """
market grocery store shop cafe corner bakery deli pharmacy books hardware supermarket kiosk bistro garden sunrise
harbor maple river lakeside central union station old town north south east west king queen royal blue
""".split()  # noqa: SIM905

OTHERS = """
thank you please come again welcome have a nice day cashier table server guest order receipt invoice date time store
tel phone street road avenue city card cash visa change total subtotal tax vat discount balance due paid amount
items sold qty price unit member points saved approved ref auth terminal refund return within days keep this copy
customer the and for with not all but can was one our out are see now who did its let put say she too use file name
size error warning info debug start stop done failed loading ready user host port path open close read write line
test run build exit code status number list key value true false none page next back help system network disk memory
process server client
""".split()  # noqa: SIM905

TOTALS = "total subtotal tax cash card change due visa paid vat balance".split()  # noqa: SIM905
