"""Words and colours of the synthetic world: subjects (what a pin shows) and styles (how), real enough to look at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A supertopic: its name, what it consists of, what that is made of, and the composition that draws it."""

    name: str
    composition: str
    nouns: tuple[str, ...]
    details: tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """A style: its name and its palette, the ground first, as RRGGBB."""

    name: str
    palette: tuple[str, str, str, str, str]


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _subject(name: str, composition: str, nouns: str, details: str) -> Subject:
    return Subject(name, composition, _words(nouns), _words(details))


SUBJECTS = (
    _subject(
        "Furniture",
        "furniture",
        "chairs, armchairs, sideboards, bookshelves, stools, desks, benches, coffee tables, daybeds, dressers, "
        "nightstands, wardrobes",
        "walnut, white oak, brass legs, woven cane, bouclé, bent plywood, saddle leather, tubular steel, "
        "cherry wood, rattan, ash veneer, velvet",
    ),
    _subject(
        "Ceramics",
        "vessels",
        "vases, mugs, teapots, bowls, planters, plates, pitchers, candle holders, jars, espresso cups, platters, "
        "bud vases",
        "stoneware, porcelain, ash glaze, terracotta, raku, speckled clay, celadon, salt glaze, slip trailing, "
        "sgraffito, matte glaze, kintsugi",
    ),
    _subject(
        "Illustration",
        "sprigs",
        "botanicals, ferns, wildflowers, herbs, orchids, mushrooms, seed pods, olive branches, eucalyptus, "
        "seaweeds, grasses, tulips",
        "watercolor, gouache, ink wash, linocut, colored pencil, risograph, etching, dry brush, cold press paper, "
        "line and wash, stippling, screen print",
    ),
    _subject(
        "Textiles",
        "quilt",
        "quilts, rugs, cushions, blankets, tapestries, scarves, curtains, tea towels, tote bags, table runners, "
        "patchwork, wall hangings",
        "indigo, hand block print, merino, raw linen, tufting, natural dye, embroidery, kantha stitch, jacquard, "
        "sashiko, organic cotton, mohair",
    ),
    _subject(
        "Gardens",
        "garden",
        "courtyards, balconies, herb beds, rock gardens, ponds, pergolas, raised beds, rose walks, greenhouses, "
        "terraces, meadows, gravel paths",
        "lavender, drought tolerant, climbing roses, box hedges, ornamental grasses, moss, clay pots, dry stone, "
        "cedar trellis, native plants, rain barrel, espalier",
    ),
    _subject(
        "Baking",
        "rounds",
        "sourdough loaves, layer cakes, galettes, macarons, cinnamon buns, shortbread, tarts, brioche, croissants, "
        "meringues, cookies, focaccia",
        "brown butter, rye flour, cardamom, dark chocolate, lemon curd, sea salt, almond paste, sesame, "
        "slow fermentation, vanilla bean, figs, pistachio",
    ),
    _subject(
        "Travel",
        "hills",
        "mountain huts, harbours, night markets, coastal roads, desert camps, island villages, sleeper trains, "
        "lighthouses, alpine lakes, old towns, canyons, hot springs",
        "golden hour, weekend trip, hidden gem, slow travel, hiking, off season, packing list, map, film camera, "
        "ferry, sunrise, camper van",
    ),
    _subject(
        "Architecture",
        "arches",
        "facades, staircases, cabins, pavilions, chapels, libraries, brick houses, skylights, towers, bridges, "
        "arcades, tiny houses",
        "board-formed concrete, timber frame, corten steel, rammed earth, glass brick, white stucco, slate roof, "
        "travertine, courtyard plan, passive house, terrazzo, oak cladding",
    ),
    _subject(
        "Posters",
        "blocks",
        "concert posters, film posters, type specimens, travel posters, book covers, matchbox labels, "
        "exhibition posters, album sleeves, stamps, calendars, infographics, packaging",
        "grotesque type, letterpress, halftone, overprint, grid system, foil stamp, risograph, hand lettering, "
        "two colors, die cut, uncoated paper, monogram",
    ),
    _subject(
        "Jewellery",
        "jewels",
        "rings, earrings, pendants, bracelets, brooches, cuffs, necklaces, signets, hairpins, lockets, charms, anklets",
        "hammered gold, sterling silver, pearl, opal, recycled gold, enamel, moonstone, garnet, filigree, "
        "lost wax casting, turquoise, labradorite",
    ),
    _subject(
        "Lighting",
        "lamps",
        "pendant lamps, floor lamps, sconces, lanterns, desk lamps, chandeliers, paper lamps, neon signs, "
        "string lights, table lamps, globe lights, track lights",
        "opal glass, rice paper, spun brass, pleated linen, dimmable, smoked glass, warm white, marble base, "
        "chrome, alabaster, cork, linen cord",
    ),
    _subject(
        "Outfits",
        "garments",
        "coats, knitwear, dresses, boots, loafers, hats, denim, shirts, suits, raincoats, skirts, sneakers",
        "wool blend, selvedge, corduroy, oversized, tailored, thrifted, layering, pleats, cashmere, waxed cotton, "
        "capsule wardrobe, tweed",
    ),
    _subject(
        "Tattoos",
        "moons",
        "moons, snakes, flowers, swallows, anchors, waves, mountains, dragons, daggers, leaves, stars, butterflies",
        "fine line, blackwork, dotwork, forearm, ankle, hand poked, micro realism, flash sheet, single needle, "
        "negative space, ornamental, shoulder",
    ),
    _subject(
        "Kitchens",
        "tiles",
        "islands, backsplashes, open shelves, pantries, copper pans, breakfast nooks, farmhouse sinks, spice racks, "
        "knife blocks, worktops, range hoods, tile floors",
        "zellige, butcher block, unlacquered brass, soapstone, shaker doors, beadboard, quartz, plaster hood, "
        "checkerboard, enamelware, marble, peg rail",
    ),
    _subject(
        "Weddings",
        "wreath",
        "bouquets, invitations, table settings, flower arches, cakes, centrepieces, veils, place cards, "
        "aisle flowers, boutonnieres, lantern walks, garlands",
        "ranunculus, wax seal, silk ribbon, dried flowers, vellum, taper candles, anemones, calligraphy, "
        "garden party, pampas grass, dahlias, elopement",
    ),
    _subject(
        "Paper crafts",
        "folds",
        "origami, pop-up cards, paper flowers, notebooks, collages, bunting, envelopes, marbled papers, "
        "bookbindings, stencils, paper stars, mobiles",
        "washi, kraft paper, coptic stitch, scoring, template, crepe paper, handmade paper, paper cutting, "
        "beginner friendly, kirigami, block print, deckle edge",
    ),
)

STYLES = (
    Style("mid-century", ("F3E9D7", "C8553D", "2A6F6B", "E2A73B", "3B2F2A")),
    Style("Scandinavian", ("F4F2EE", "A9B8B0", "D9C2A7", "4A5A5E", "E7D9CF")),
    Style("Japandi", ("EAE3D8", "8C7B6A", "B5A690", "2F2E2B", "9AA38B")),
    Style("Art Deco", ("14213D", "D4AF37", "F2E8CF", "2A9D8F", "A23E48")),
    Style("brutalist", ("CFCCC6", "8A8782", "5B5955", "2B2A29", "D35B33")),
    Style("bohemian", ("F6E3CE", "B5533C", "7A4E7E", "E0A458", "3F6C51")),
    Style("coastal", ("F2F7F9", "2B6C8F", "8FC1D4", "E6D3B1", "F08A6B")),
    Style("cottage", ("FBF4EA", "C97B84", "8FA876", "E9C7A5", "6B7FA3")),
    Style("industrial", ("3A3D40", "B5651D", "8D9297", "D9D4CC", "1F2123")),
    Style("minimalist", ("FAFAF8", "1D1D1B", "C9C6C0", "E8E4DD", "D94F30")),
    Style("Memphis", ("FFF3E6", "FF5C8A", "00B2A9", "FFC93C", "3A2E8C")),
    Style("Bauhaus", ("F2EBDC", "D62828", "1D4E9E", "F4B41A", "1A1A1A")),
    Style("Victorian", ("3B1F2B", "A4133C", "C9A66B", "2F5D50", "E9D8C6")),
    Style("tropical", ("E9F7EF", "0B8457", "F76C5E", "FFD166", "0A4D68")),
    Style("desert", ("F7E4D0", "C8693F", "E3A77C", "7B9E87", "6D3B2C")),
    Style("Nordic winter", ("EAF0F6", "274472", "87A7C7", "FFFFFF", "B23A48")),
    Style("pastel", ("FDF6FB", "F7B2C4", "B8C0FF", "C8F2D9", "FFDFA6")),
    Style("monochrome", ("EFEFEF", "111111", "555555", "999999", "CCCCCC")),
    Style("autumnal", ("F5E6CC", "A63D2F", "D98324", "6A7B3C", "4E2A1E")),
    Style("Mediterranean", ("FDF8EF", "1F5FA8", "E07A3F", "F2C14E", "7A9B57")),
    Style("seventies", ("F4D9A8", "C1440E", "7B3F00", "E89C31", "5E7C4C")),
    Style("folk", ("FFF8EC", "C1272D", "1B4F72", "E3A72F", "2E7D4F")),
    Style("gothic", ("17131C", "5B2A86", "8A1C3C", "6F6A7D", "C8BFD6")),
    Style("wabi-sabi", ("DDD3C5", "9C8B75", "6F6557", "BFA58A", "474238")),
)

OPENERS = ("", "Small ", "Quiet ", "Favourite ", "Handmade ", "Vintage ", "Modern ", "Simple ", "Bold ", "Sunlit ")
EVERYWHERE = ("inspiration", "ideas", "diy", "handmade", "color palette", "wishlist", "gift ideas", "vintage")
BOARD_FORMS = ("{}", "{} ideas", "my {}", "{} to keep", "dreaming of {}", "all the {}")
"""What a board is called; {} is its topic."""
