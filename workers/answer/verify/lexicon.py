"""The words the verifier knows: grammar, bounds, units, words of like and of opposite meaning. Data, no logic.

The tables are small on purpose. A word they lack is compared by its stem alone, and an unknown word makes a sentence fail, so a
missing entry costs a true sentence, never lets a false one through.
"""

from __future__ import annotations


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


def _groups(table: str) -> dict[str, str]:
    """Each word of a line → the line's first word."""
    return {word: line.split()[0] for line in table.strip().splitlines() for word in line.split()}


def _heads(table: str) -> dict[str, str]:
    """ "must: shall required …": each word → the head before the colon."""
    found, head = {}, ""
    for word in table.split():
        if word.endswith(":"):
            head = word[:-1]
        else:
            found[word] = head
    return found


# Words that carry no claim of their own. Those that bear on polarity, bounds, modality or direction are handled elsewhere too.
FUNCTION = _words("""
    a an the this that these those here there it its itself they them their theirs themselves he him his she her hers we us
    our ours you your yours yourself i me my mine one's who whom whose which what when where why how if then else than as so
    such and or but nor yet for of to in on at by with from into onto upon about over under above below between among through
    during before after until till since while whereas although though because unless except without within across along
    around near via per toward towards against despite out up down off away back again is are was were be been being am 's 're
    'm isn't do does did doing done don't have has had having will would shall should can could may might must cannot ought
    let's not no never none nothing neither also too either both each every all any some other another same own very quite
    rather just only even still already once more most less least much many few several ones however therefore thus hence
    otherwise instead moreover furthermore well please etc e.g i.e eg ie vs yes ok okay oh anyone someone everyone something
    anything everything whatever whichever whoever whether that's it's there's you're we're they're you'll we'll it'll 'll 've
    'd doesn't didn't won't wouldn't can't couldn't shouldn't aren't wasn't weren't hasn't haven't hadn't mustn't needn't like
    get gets got getting together apart long sure right simply actually basically really certain usually normally currently
""")
DETERMINERS = _words(
    "a an the this that these those its their his her our your my any some all each every both no such own other"
)
# Words that may be added without adding a fact.
LIGHT = _words("""
    use make need want way thing case able possible available provide offer mean give take help find see know like work kind
    sort following below above time part number option example note choose simple directly specific particular call name allow
    value mode go result appear happen form depend apply refer describe explain question answer page website site text
    information detail people person place purpose
""")
# Verbs that tell the reader what to do with what the evidence names.
INSTRUCTIONS = _words("""
    use set pass open run read add go click press select choose type enter put check look call take give write specify start
    switch wait hold assign save keep visit contact ask make try edit see follow execute insert define place point pick tick
    mark bring
""")
BE = _words(
    "is are was were be been being am 's 're isn't aren't wasn't weren't it's that's there's you're they're we're gets get got"
)
AUXILIARIES = BE | _words("""
    do does did have has had will would shall should can could may might must cannot don't doesn't didn't won't wouldn't can't
    couldn't shouldn't hasn't haven't hadn't mustn't 'll 've it'll you'll we'll
""")
# Verbs common enough to show that a piece of a sentence is a clause; stems as `tokens.stem` makes them are computed there.
COMMON_VERBS = _words("""
    open close start stop begin end cost pay need require allow use run install remove delete create make add set change show
    display keep store save send receive get give take bring put choose select click press type enter leave arrive contain
    include offer provide support work help apply book order cancel return refund charge contact call write read return accept
    refuse reject enable disable turn switch replace load update upgrade download upload copy move check test print import
    export connect join attend visit ship deliver last happen mean become remain stay go come work serve close lead manage
    handle hold sell buy rent meet teach cover define specify control determine cause prevent avoid fail follow belong depend
    describe list name call start launch build compile execute skip ignore rotate drop reduce raise sort filter merge split
    push pull commit sync mount encrypt decrypt compress scan detect warn notify log record measure count calculate compute
    convert render draw paint protect connect reach treat answer learn grow travel hide teach stay override expire eat drink
    wash clean cook bake repair fix wear lock unlock park sit wait expire renew register sign
""")

NEGATORS = _words("""
    not no never none nothing neither nor cannot without nobody isn't aren't wasn't weren't don't doesn't didn't won't
    wouldn't can't couldn't shouldn't hasn't haven't hadn't mustn't needn't n't hardly
""")
# Verbs that deny what follows them: "prevents it from being sent".
DENYING = _words("prevent avoid refuse fail lack forbid prohibit unable impossible stop-from")
# After a negation these are not yet what is denied: the next content word is denied as well.
LIGHT_HEADS = _words("""
    possible able allow permit recommend require need necessary want intend suppose guarantee have help try appear seem
    necessarily always yet automatically directly currently even actually longer advise available advisable safe plan mean
    easy make enough use true case certain correct say
""")
EXCEPTIVE = {"without": "without", "unless": "unless", "except": "except", "excluding": "except", "excepting": "except"}
ONLY = _words("only solely exclusively merely")
# Adverbs in -ly that may be left out: they comment, or count as quantifiers elsewhere. Also words that only look like adverbs.
HARMLESS_ADVERBS = _words("""
    only really simply easily quickly carefully actually basically usually generally normally typically commonly currently
    directly automatically immediately additionally respectively specifically especially particularly obviously clearly freely
    finally family supply apply reply rely assembly multiply comply imply likely friendly daily weekly monthly quarterly yearly
    hourly early conveniently happily kindly possibly probably exactly merely solely exclusively mainly mostly
    absolutely totally completely entirely highly extremely strongly greatly smoothly seamlessly perfectly
    eventually namely recently previously originally shortly effectively essentially anomaly otherwise likewise
""")
# Words before a noun without which it stands for more, or for something else.
LIMITING = _words("""
    reverse reversed opposite former partial temporary provisional unused empty expired invalid inactive unpaid unread archived
    duplicate hidden fake
""")
# Conditions that go without saying.
CONDITION_FREE = _words("needed necessary possible applicable desired wish like prefer want required appropriate any")
# Signs that a list is not given as the whole.
PARTIAL_LISTS = _words(
    "include includes including such example e.g among also like other others more etc both several some for-example"
)
MODALS = _heads("""
    must: must mustn't shall required requires require needs need necessary mandatory obligatory compulsory needed has-to
        have-to had-to obliged
    should: should shouldn't ought recommended recommend recommends advised advisable suggested
    may: may might can could possibly perhaps maybe optional optionally cannot can't
    will: will would won't always
""")
QUANTIFIERS = _heads("""
    all: all every each everyone everything always both entire whole
    some: some several sometimes occasionally certain few partly partially
    most: most mostly usually often normally generally typically frequently many
    rarely: rarely seldom
""")
# Prepositions and conjunctions whose other side is another claim.
DIRECTIONAL = _words(
    "from to into onto before after until than with by for over under above below instead via because if when unless on in"
)
SWAPPABLE = _words("from to into onto before after until than instead over under above below because if when unless")
CONTRAST = {
    "from": _words("to into onto until"),
    "to": _words("from"),
    "into": _words("from"),
    "onto": _words("from"),
    "before": _words("after"),
    "by": _words("after"),
    "after": _words("before by"),
    "until": _words("from after"),
    "above": _words("below under"),
    "over": _words("below under"),
    "below": _words("above over"),
    "under": _words("above over"),
}
PARTICLES = {"on": "off", "off": "on", "up": "down", "down": "up", "in": "out", "out": "in"}
BREAKING_WORDS = _words(
    "but while whereas although though because if when unless until which who where so and or that before after once"
)
HARD_BREAKS = _words("but while whereas although though because if when unless which so")
REFERENCES = _words("""
    it this that these those they them such its their he she otherwise however therefore instead also then so in-this-case
    both either neither here there another the-latter doing
""")

# Nouns and adjectives that, before "of" or "than", relate two things the way a verb does.
RELATIONAL_NOUNS = _words(
    "part member subset kind type component example successor predecessor parent child owner copy version subclass"
)

SYNONYMS = _groups("""
    use utilize utilise employ using usage
    start begin launch commence
    stop halt end finish terminate
    show display present
    delete remove erase
    create generate
    change modify alter edit adjust
    choose select pick
    get obtain receive
    buy purchase
    need require necessary must mandatory compulsory
    help assist
    allow permit let
    free complimentary gratis
    cost price fee charge rate
    store save keep retain preserve
    big large
    small little tiny
    contain include comprise
    happen occur
    fix repair
    click press push hit
    folder directory
    picture image photo photograph
    film movie
    child kid children
    shop store-shop
    phone telephone
    mail email e-mail emails
    fast quick rapid
    quickly rapidly
    run execute
    see view look
    tell inform notify
    ask request
    possible able
    parcel package-parcel
        entire whole complete
    build construct
    go travel
    give provide offer supply
    try attempt
    enough sufficient
    several many numerous
    location place
    speak talk
    reach contact
    reserve book booking reservation
    discount reduction
    guest visitor
    staff employee employees team
    shut close
    error failure
    wrong incorrect
    correct right
    main primary principal
    area region zone
    assure ensure guarantee
    fewer less
    write specify
    via through
    per each-per
    return bring-back
    default standard
    illness sickness
    car vehicle automobile
""")

ANTONYMS = {}
for _line in """
    open close/shut
    enable disable
    increase decrease/reduce/lower
    more less/fewer
    allow forbid/deny/prohibit/refuse/ban/block/prevent
    accept reject/refuse/decline
    include exclude/omit
    add remove/delete/subtract
    start stop/end/finish
    high low
    large small
    long short
    fast slow
    early late
    first last
    minimum maximum
    inside outside
    buy sell
    send receive
    arrive depart/leave
    free paid/chargeable
    public private
    visible hidden/invisible
    show hide
    hot cold
    warm cool
    safe dangerous
    same different
    old new
    lock unlock
    mount unmount
    install uninstall/remove
    upload download
    import export
    read write
    encrypt decrypt
    connect disconnect
    push pull
    ascending descending
    indoor outdoor
    indoors outdoors
    weekday weekend
    weekdays weekends
    morning evening/afternoon
    borrow lend
    north south
    east west
    left right
    win lose
    pass fail
    optional mandatory/required/compulsory/obligatory
    true false
    always never/sometimes
    keep discard/delete/lose
    local remote
    empty full
    success failure
    cheap expensive
    easy difficult/hard
    strong weak
    wet dry
    better worse
    best worst
    greater smaller
    faster slower
    longer shorter
    earlier later
    higher lower
    older younger/newer
    cheaper dearer
    with without
    automatic manual
    automatically manually
    temporary permanent
    temporarily permanently
    internal external
    positive negative
    succeed fail
    single multiple/double
    active inactive
    valid invalid
    known unknown
    synchronous asynchronous
    static dynamic
    adult child
    day night
    raw cooked
    vertical horizontal
    vertically horizontally
    row column
    client server
    source target/destination
    input output
    top bottom
    front rear/back
    forward backward
    summer winter
    spring autumn
""".strip().splitlines():
    _left, _right = _line.split()
    for _other in _right.split("/"):
        ANTONYMS.setdefault(_left, set()).add(_other)
        ANTONYMS.setdefault(_other, set()).add(_left)

NEGATIVE_PREFIXES = ("non-", "non", "un", "dis", "in", "im", "ir", "il")

# Each line: the unit, then how it is written.
UNITS = {
    word: line.split()[0]
    for line in """
    B byte bytes b
    kB kb kilobyte kilobytes kib
    MB mb megabyte megabytes mib
    GB gb gigabyte gigabytes gib
    TB tb terabyte terabytes tib
    bit bit bits
    Mbit/s mbps mbit/s mbit
    Gbit/s gbps gbit/s gbit
    ms ms millisecond milliseconds msec
    µs µs us microsecond microseconds
    s s sec secs second seconds
    min min mins minute minutes
    h h hr hrs hour hours
    day day days
    week week weeks
    month month months
    year year years yr yrs
    decade decade decades
    century century centuries
    EUR € eur euro euros
    USD $ usd dollar dollars
    GBP £ gbp pound-sterling quid
    cent cent cents
    CHF chf franc francs
    JPY ¥ jpy yen
    % % percent per-cent pct
    point percentage-point percentage-points
    mm mm millimetre millimetres millimeter millimeters
    cm cm centimetre centimetres centimeter centimeters
    m m metre metres meter meters
    km km kilometre kilometres kilometer kilometers
    inch inch inches
    ft ft foot feet
    mile mile miles mi
    yard yard yards
    mg mg milligram milligrams
    g g gram grams
    kg kg kilo kilos kilogram kilograms
    lb lb lbs pound pounds
    oz oz ounce ounces
    t tonne tonnes ton tons
    ml ml millilitre millilitres milliliter milliliters
    l l litre litres liter liters
    cup cup cups
    °C °c celsius
    °F °f fahrenheit
    ° ° degree degrees
    px px pixel pixels
    pt pt
    dpi dpi
    Hz hz hertz
    kHz khz
    MHz mhz
    GHz ghz
    W w watt watts
    kW kw kilowatt kilowatts
    kWh kwh
    V v volt volts
    km/h km/h kph
    mph mph
    am am a.m
    pm pm p.m
    x x times
""".strip().splitlines()
    for word in line.split()[1:]
}

_ONES = """
    zero one two three four five six seven eight nine ten
    eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * tens for tens, word in enumerate(_TENS.split(), 2)
}
MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000, "dozen": 12}
