"""Everyday nouns: what the texts of `retort bench recall` pair with each other. Nearly all are one token of the shipped vocabulary."""

NOUNS = tuple(
    """
    acorn actor alarm album anchor angle apple apron arrow artist autumn badge bag baker ball balloon banana band bank barn
    barrel basin basket bath battery beach bead beam bean bear beard beaver bed bee beetle bell belt bench berry bike bird
    biscuit blade blanket block boat bone book boot bottle bow bowl box branch brass bread brick bride bridge broom brush
    bubble bucket bull bus bush butter button cabin cable cake camel camera camp canal candle candy canoe canvas cape car
    carpet carrot cart castle cat cave cedar chain chair chalk cheese cherry chess chicken chin church circle circus clay
    cliff clock cloth cloud coach coal coast coat coffee coin comb cook copper coral corn cotton couch cow crab crane crown
    cup curtain daisy deer desert desk diamond dinner dish doctor dog doll dolphin donkey door dragon drawer dress drum duck
    dust eagle ear earth egg elbow elephant engine envelope farm farmer feather fence fiddle finger fire fish flag flame
    flask flower flute fog forest fork fountain fox frame frog fruit garden garlic gate ghost giant gift giraffe glass globe
    glove goat gold goose grape grass guitar hammer hand harbor harp hat hawk heart helmet hen hill hood hook horn horse
    hotel house ice iron island ivory jacket jar jewel judge juice jungle kettle king kitchen kite knife knight ladder lake
    lamb lamp lantern leaf leather lemon lens leopard letter lily lime lion lip lizard lobster lock log lorry magnet maple
    marble market mask meadow medal melon milk mill mirror monkey moon mosquito mountain mouse mouth mud museum mushroom
    nail neck needle nest net nose nurse nut oak oasis ocean olive onion orange orchard oven owl ox oyster paint palace palm
    pan paper parrot peach peacock pear pearl pen pencil pepper piano picture pig pigeon pillow pilot pine pipe pirate pizza
    plane planet plate plum pocket pond pony pool poppy potato prince pumpkin puppet purse queen rabbit radio rail rain
    raven razor ribbon rice ring river road robin robot rock roof rope rose ruby rug sail salad salmon salt sand sauce saw
    scarf school scissors sea seal seed shadow shark sheep shelf shell shield ship shirt shoe shop shrimp silk silver sink
    skirt sky smoke snail snake snow soap sock sofa soldier soup spear spider spoon spring squirrel stable stamp star statue
    steam steel stone storm stove straw street sugar sun swan sword table tail tailor tea teacher tent thread throne thumb
    tiger tin toast tomato tongue tooth torch towel tower toy train tree truck trumpet tulip tunnel turkey turtle umbrella
    uncle valley van vase velvet village violin wagon wall wallet walnut wasp watch water wax whale wheat wheel whip whistle
    willow window wine wing winter wolf wood wool worm yard zebra
    """.split()  # noqa: SIM905  (a list of names would hide them among quotes)
)
