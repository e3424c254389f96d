"""Words that any English text may hold: the background against which a corpus's own terms stand out."""

COMMON_WORDS = frozenset(
    """
    ability able above access accompanied account achieved across act action active activities activity actual actually ad add added
    adding addition additional additionally adequate adjustment adjustments administration administrative advanced advantage affect
    affected affecting again against agency agent agents aggressive ago agreed agreement air allow allowed allowing almost along
    already alternative although always american among amount amounts annual another anticipated apart apparent appear appeared
    appears application approach appropriate approved approximately april area areas around asked asking associated association
    associations attempt attitude attributed available average avoid away back bad balance balanced barriers base based basic basis
    became because become becoming began beginning believe believed below benefit benefits best better beyond board box brought
    building call called cannot capacity care case cases cause caused causes causing center centers central certain challenge
    challenges change changed changes changing check children china choice cited city class clear clearly close closed closely cold
    collected college combination combined come common commonly communities community compared comparison compensation complete
    completed completion computer concern concerning concerns condition conditions conducted conference confidence confirmed
    consecutive consensus conservative consider considerable considered considering consistent constant constructed consumption
    contact contained continue continued continuing contrast contribute contributed control controls conventional core cost costly
    costs count countries country course create created creating critical current currently cut damage date day days deal decade
    decades december decided decisions decline declined decreased deep degree delay delayed demand demands department dependent
    depending described describes desire desired despite determine determined developed developing development differences different
    difficult difficulties difficulty direct direction directly distribution district districts divided division done double down draw
    drive driven driving dropped dry due earlier early ease economic education effect effective effects efficiency efficient effort
    efforts eight either electronic elsewhere emerged emerging employees encourage encouraged end ended energy engaged enough entire
    entry environment environmental equal equipment especially essential established estimated estimates europe european even events
    ever every evidence evident example examples except exception excessive existing expanded expect expected expenditure experience
    experienced expressed extend extended extensive extent extra extremely face faced facilities facing fact factor failed fall falls
    family far fast faster favorable fear feature february feeding feel feeling feet felt few fewer field fifth figure figures fill
    final finally financial find finding first five fixed flexible floor flow focus focused follow followed food foot force forced
    form forward found four fourth frequent frequently full fully funding further furthermore future gain gained gas gave general
    generally generated get getting giving global go going gold good government gradually great greater greatest greatly group groups
    growing growth half hand hard head health healthy heat heavy held help helped high higher highest highly history hold home homes
    hot hours house household however immediate immediately impact implement importance important impossible improve improved
    improvement improvements improving inability inadequate incentives include included includes including income increase increased
    increases increasing indeed independent index indicate indicated indicates indicating individual individuals influence information
    initial instance instead instruments intensive intentions interest intermediate international introduction involved isolated issue
    issues items january japan japanese job july june just keep keeping kept key know known lack large largely larger largest last
    late later latter lead leaders leading learn least leave leaving led left less level levels life light like likely limit limited
    line lines list little living local located long longer look looking losing loss losses lost lot low lower lowest made main mainly
    maintain maintained maintaining maintenance major majority make makes making management manager many march margin marked market
    match material materials maximum may measure measured measures media meet meeting memory men mentioned met mid middle million
    minimum minor mix mixed mobile model moderate month months moreover mostly move moved movement movements moving much multiple
    national natural near nearly necessary need needed needs negative neither net nevertheless new newly next nine non none nor normal
    north note noted notes november now number numbers numerous observed obtain occur occurred october off offer offered offering
    office often oil old once ongoing open opening operating operation opinion opportunities order organization original others
    otherwise out output outside overall own paid paper part partially particular particularly parts pass past pattern peak people per
    percent percentage perform performance performing perhaps period periods permanent persistent personal personnel phase physical
    picture place placed plan planned planning plans point points policy poor popular population portion position positive possibility
    possible possibly post potential power practical preparation prepared present pressure prevent previous previously primarily
    primary principal prior private probably problem problems process produce produced product production productivity products
    professional program programs progress project promising proposed protection provide provided provides providing public purposes
    push pushing put qualified quality questions quite raised raising range ranges ranging rapid rapidly rate rates rather reach
    reached reaching read real reason reasons receive received receiving recent recently record recorded records recovery red reduce
    reduced reducing reduction reductions referred reflect reflected reflects regard regarding region regional regions registered
    regular regulation related relationships relative relatively relief remain remained remaining remains replace replacement report
    reported reporting reports representative represented represents required requirements requiring residents resistance resource
    resources respect respective respectively responded response rest result resulted resulting results return returned revealed
    review revised right rise risk risks role room row rule run running rural safety same satisfactory satisfied scale schedule
    scheduled school schools season second section sector see seek seeking seem seemed seems seen selected selective self sense
    sensitive september serious service services set sets setting seven several severe severely share shared short show showed showing
    shown shows side sign significant significantly signs similar similarly simply since single situation six size skill skills
    slightly slow small smaller social solid somewhat soon sought source sources south space special specific specifically spent
    square stability stable staff standards start started starting state stated states stay steady step still stimulate stopped
    storage strength strict strong stronger strongly structures study substantial substantially success successful suffer suffered
    suffering sufficient suggest suggested suggesting suggests supply support supported survey sustained system systems take taken
    taking target targets technical technologies technology ten tend term terms themselves therefore think third thirds though thought
    three throughout thus time times together told too took tool tools top total toward towards traditional training true trying turn
    twelve twenty two type types typical typically unable unit united units university unless unlikely until upon upper urban use uses
    usual usually value values varied variety various very view vigorous visit volume wait waiting want wanted warm water wave way
    ways weak weakness week weekly weeks well west western whether whole wide widely widespread willing willingness within without
    women work worked worker workers working works world worldwide year years yet yield young zero
    """.split()
)
"""Words that stand in at least one in 200 pieces of 2,000 characters of encyclopedia articles and speeches, of economic reports, and of clinical
papers alike; function words (support.py), and names of places and trades, left out."""
