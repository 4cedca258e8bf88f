"""What pages are asked of the writer: places of all kinds, and what their pages are about."""

from __future__ import annotations

import random


def _names(table: str) -> list[str]:
    return [one.strip() for one in table.replace("\n", " ").split("|") if one.strip()]


KINDS = _names("""
    Bakery|Hotel|Dental Practice|Public Library|Bicycle Shop|Yoga Studio|Law Office|Camping Site|Music School|Garden Centre|
    Garage|Tea Merchants|Museum|Swimming Pool|Animal Shelter|Language School|Furniture Makers|City Council|Tax Advisers|
    Climbing Hall|Restaurant|Winery|Farm Shop|Bus Company|Internet Provider|Insurance Brokers|Nursery School|
    Faculty of Biology|Photography|Pharmacy|Physiotherapy|Accounting Software|Web Hosting|Cleaning Service|Plumbing|
    Electricians|Food Bank|Sports Club|Theatre|Cinema|Printing House|Bookshop|Shoe Store|Phone Repair|Travel Agency|
    Removals|Solar Energy|Hairdressers|Veterinary Clinic|Driving School|Coworking|Choir|Chess Club|Hiking Club|Ferries|
    Car Rental|Gym|Opticians|Tool Hire|Toy Shop|Brewery|Coffee Roasters|Ski School|Boat Hire|Escape Rooms|Zoo|Planetarium|
    Job Agency|Self Storage|Energy Supply|Credit Union|Home Care|Community Garden|Film Festival|Pet Food|Learning Platform|
    Project Planner|Weather Instruments|3D Printers|Savings Bank|Allotments|Mountain Hut|Recycling Centre|Town Archive|
    Art School|Ballet School|Beekeeping Supplies|Botanical Garden|Bowling Alley|Building Society|Butchers|Carpentry|
    Caterers|Cemetery Office|Cheese Dairy|Child Minders|Chimney Sweeps|Church Hall|Clock Repair|Concert Hall|Cookery School|
    Courier Service|Crematorium|Cricket Club|Dance Hall|Dog Training|Dry Cleaners|Estate Agents|Fabric Shop|Fencing Club|
    Fire Brigade|Fishing Association|Flight School|Florists|Football Academy|Foundry|Funeral Directors|Glassworks|Golf Club|
    Guest House|Harbour Office|Hearing Aids|Heating Engineers|Herb Nursery|Hospital|Ice Rink|Jewellers|Judo Club|
    Kitchen Fitters|Laboratory Supplies|Laundry|Locksmiths|Lost Property Office|Maritime Museum|Market Hall|Midwives|
    Model Railways|Mosque|Nail Studio|Night School|Notary|Observatory|Open-Air Stage|Orchard|Orthopaedics|Paint Shop|
    Paragliding|Parking Garages|Passport Office|Pension Fund|Piano Tuners|Pottery|Primary School|Property Management|
    Quilting Guild|Radio Station|Railway|Repair Café|Residents Association|Riding Stables|Rowing Club|Sailing School|Sauna|
    Scouts|Second-hand Store|Security Service|Sewing Machines|Shipyard|Skate Park|Social Housing|Speech Therapy|
    Stamp Dealers|Stationers|Steel Traders|Stove Makers|Student Residence|Surf Camp|Surveyors|Tailors|Taxi Service|
    Tennis Club|Tourist Office|Translation Bureau|Tree Care|University Library|Upholstery|Used Cars|Vinyl Records|
    Volunteer Centre|Walking Tours|Waste Collection|Watermill|Wedding Venue|Window Cleaning|Women's Shelter|Youth Hostel|
    Backup Software|Chat App|Photo Editor|Password Manager|Video Player|Mail Client|Calendar App|Note-taking App|
    Map Software|Home Automation Hub|Network Router|Washing Machines|Dishwashers|Coffee Machines|E-Bikes|Robot Vacuum|
    Digital Piano|Hiking Boots|Tents|Camera Lenses|Heat Pumps|Electric Kettles|Smart Thermostat|Drone|Label Printer|
    Point-of-Sale System|Payroll Service|Booking System|Newsletter Tool|Form Builder
""")
TOPICS = _names("""
    Opening hours|Holiday hours|Prices|Discounts and who gets them|Delivery times|Shipping abroad|Returns|Refunds|
    How to book|Cancelling a booking|Our history|The team|Getting here|Parking|Membership|Ending a membership|House rules|
    How it works|Warranty|Repairs|Privacy|Ways to pay|Invoices|Deposits|Next event|Programme|Jobs|Apprenticeships|
    Access for wheelchair users|Safety|Emergencies|Problems and what to do|Error messages|Courses|Course dates|Registration|
    Waiting list|Vouchers|Children|Families|School groups|Group visits|Technical data|Sizes|Materials and care|
    Ingredients and allergens|Account and password|What is included|Common mistakes|Volunteering|Liability|Insurance|
    Lost property|Pets|Smoking|Food and drink|Equipment hire|Storage|Installation|First steps|Settings|Keyboard shortcuts|
    System requirements|Updates|Import and export|Backup and restore|Sharing with others|Notifications|Plans and limits|
    Trial period|Timetable|Zones and fares|Tariffs|Contracts and notice|Complaints|Donations|Grants|Opening an account|Fees|
    Interest rates|Documents you need|Deadlines|Weather and closures|Winter service|Maintenance|Cleaning|Spare parts|
    Recycling and disposal|Certificates|Quality tests|Comparing the models|Glossary|Questions and answers|
    Notice to residents|Minutes of the meeting|Terms of hire|Terms of use|Competition rules|Recipe|Instructions|
    Care after treatment|Preparing for your appointment|Before you arrive|On the day|Contact|Emergency numbers|
    Map and directions
""")
FIRST = _names("""
    Alder|Amber|Anchor|Applegate|Arden|Ashby|Aspen|Aurora|Badger|Barley|Beacon|Bellwether|Birch|Bramble|Bridge|Briar|Calder|
    Canal|Castle|Cedar|Chalk|Cobalt|Copper|Cormorant|Cove|Crane|Crown|Dale|Delta|Dockside|Dove|Drake|Dune|Eagle|East|Elder|
    Elm|Ember|Fairfield|Falcon|Fern|Finch|Flint|Forge|Foxglove|Garnet|Glen|Grange|Granite|Green|Grove|Gull|Harbour|Hazel|
    Heath|Heron|Hillside|Holly|Hopkins|Indigo|Iris|Ivy|Jade|Juniper|Kestrel|Kiln|Lakeside|Lantern|Larch|Lark|Laurel|Lime|
    Linden|Lumen|Lynx|Magpie|Maple|Marlow|Marsh|Meadow|Merchant|Mill|Mistral|Monarch|Moss|North|Nova|Oak|Old Mill|Olive|
    Orchard|Osprey|Otter|Park|Pearl|Pebble|Pine|Pioneer|Plum|Poplar|Prism|Quarry|Quay|Quince|Raven|Redwood|Ridge|River|
    Robin|Rowan|Saffron|Sage|Salt|Sandstone|Sable|Shore|Silver|Skylark|South|Sparrow|Spring|Station|Stone|Summit|Sunrise|
    Swan|Tern|Thistle|Thyme|Tide|Tilia|Timber|Tower|Trent|Union|Upland|Vale|Valley|Velvet|Vista|Walnut|Water|Weaver|West|
    Whistler|Willow|Windmill|Wren|Yarrow|Yew|York|Zephyr
""")
SECOND = _names("Street|Hill|Bay|Lane|House|Road|Green|Field|& Sons|& Co|Bridge|Park|Cross|Point|Gate|Court")
FORMS = ("prose", "prose", "list", "table")


def random_request(shuffled: random.Random) -> tuple[str, str, str]:
    """(name of a place with its kind, topic, form) for `tasks.new_page_text`."""
    name = shuffled.choice(FIRST)
    if shuffled.random() < 0.5:
        name += f" {shuffled.choice(SECOND)}"
    return f"{name} {shuffled.choice(KINDS)}", shuffled.choice(TOPICS), shuffled.choice(FORMS)
