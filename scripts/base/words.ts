/** The words of the demonstrations. Those under `heldOut` occur in no demonstration at all. */

export interface Name {
  text: string
  pronoun: 'he' | 'she'
}

/** A thing with the adjectives that suit it. */
export interface Thing {
  noun: string
  adjectives: readonly string[]
}

export interface Words {
  names: readonly Name[]
  animals: readonly string[]
  things: readonly Thing[]
}

const list = (text: string) => text.trim().split(/\s+/)

const names = (he: string, she: string): Name[] => [
  ...list(he).map((text): Name => ({ text, pronoun: 'he' })),
  ...list(she).map((text): Name => ({ text, pronoun: 'she' })),
]

/** One thing a line: the noun, a colon and its adjectives. */
const things = (text: string): Thing[] =>
  text
    .trim()
    .split('\n')
    .map((line) => {
      const [noun = '', adjectives = ''] = line.trim().split(':')
      return { noun, adjectives: list(adjectives) }
    })

export const training: Words = {
  names: names(
    `Pip Max Tom Sam Ben Jack Leo Finn Toby Oscar Hugo Milo Otto Bruno Felix Rusty Teddy Gus Albert Henry Oliver Charlie
     Benny Billy Jasper Monty Theo Ned Ollie Rufus Archie George Walter Arthur Digby Percy Andy Alex Mark Jimmy Bobby Jake
     Pete Jerry Tommy Paul Mike Dave Harry Luke Carl David Roger Simon Frank Ralph Louis Casper Barney Chester Duncan
     Edgar Flynn Gilbert Homer Ivan Jonas Kip Lionel Marvin Nico Quentin Ravi Silas Tobias Victor Wilbur Zack Boris`,
    `Lily Mia Lucy Daisy Molly Bella Luna Ruby Tilly Rosie Clara Nora Ella Emma Hazel Olive Penny Millie Dora Wanda
     Sophie Greta Ada Ivy Martha Betty Winnie Polly Nell Maisie Edith Flora Mabel Lottie Sadie Dolly Sara Jill Mary Jenny
     Lisa Emily Tina Maria Alice Grace Annie Julie Beth Zara Mandy Cindy Rachel Chloe Susie Lulu Agnes Bridget Celia Della
     Esther Fiona Gwen Hilda Iris Josie Kitty Lena Minnie Nina Opal Pearl Rhoda Stella Thea Ursula Vera Willa Yara Zoe`,
  ),
  animals: list(
    `fox cat dog rabbit mouse frog duck squirrel owl lion turtle elephant pig cow horse hen goat kitten puppy tiger zebra
     hedgehog snail penguin otter badger mole hamster lamb goose swan crow robin toad lizard panda pony beaver raccoon
     donkey wolf koala sparrow rooster camel ladybug bee ant butterfly crab rat bat hare moose stork gecko newt weasel boar
     llama skunk chipmunk peacock pigeon turkey quail finch wren raven falcon eagle hawk leopard cheetah gorilla rhino
     buffalo yak colt ferret possum cricket beetle grasshopper firefly caterpillar calf seal worm snake moth gull`,
  ),
  things: things(`
    button: red shiny tiny blue
    key: old golden rusty silver
    ball: blue bouncy striped green
    hat: red straw funny tall
    cup: blue tin pretty white
    spoon: silver wooden big shiny
    bell: little golden brass silver
    box: wooden tiny green secret
    drum: red toy loud little
    kite: yellow paper red long
    lamp: old brass little bright
    map: old secret torn big
    ring: golden shiny silver pretty
    shell: pink smooth white pretty
    stone: smooth gray round shiny
    feather: white blue long soft
    leaf: yellow golden big red
    apple: red green juicy sweet
    pear: ripe green yellow sweet
    cake: honey big little sweet
    pie: warm apple plum big
    candle: tall white red little
    book: old thick blue green
    letter: long secret pink thick
    ribbon: blue red silk long
    scarf: warm striped red woolly
    pillow: soft blue fluffy big
    basket: big round straw little
    bucket: tin blue old red
    rope: long strong old thick
    wagon: red wooden toy little
    clock: old golden round loud
    mirror: round little silver old
    brush: big soft wooden little
    pencil: red long yellow blue
    flag: green little striped red
    whistle: tin silver loud red
    trumpet: toy brass shiny golden
    sock: striped woolly red blue
    mitten: warm red woolly blue
    coat: green warm old yellow
    umbrella: yellow big red striped
    bottle: green glass tiny blue
    bowl: blue wooden big yellow
    pot: big tin old copper
    mushroom: white round big brown
    pumpkin: big orange round fat
    carrot: big crunchy orange sweet
    acorn: brown shiny fat tiny
    balloon: red yellow round blue
    doll: rag little old pretty
    puzzle: wooden hard new big
    marble: green glass blue shiny
    lantern: paper bright little tin
    net: long green old big
    bag: blue heavy paper old
    chair: wooden tiny red little
    broom: old straw new long
    necklace: pretty silver blue golden
    lemon: yellow sour big fresh
    cherry: red sweet ripe shiny
    teapot: blue round old china
    vase: blue tall glass old
    comb: wooden pink little silver
    fan: paper pretty red silk
    fork: silver old big shiny
    mug: blue big tin yellow
    tray: silver round wooden big
    jug: blue big old tin
    purse: red little silk old
    belt: brown long old green
    cap: blue woolly red old
    slipper: pink soft warm old
    boot: old brown big rubber
    sweater: warm green striped woolly
    quilt: warm old pretty soft
    rug: red soft round old
    torch: bright little old red
    stool: wooden little red old
    sled: red fast wooden new
    puppet: funny wooden little old
    robot: toy tin silver little
    car: toy red fast blue
    train: toy wooden green long
    plane: paper toy silver little
    rocket: toy red silver big
    card: pretty birthday red funny
    stamp: old rare blue tiny
    picture: pretty big old funny
    pen: green golden blue fat
    magnet: strong red little shiny
    camera: old little black new
    guitar: old red little wooden
    violin: little old shiny brown
    harp: golden little old silver
    seed: tiny round brown magic
    walnut: big brown round old
    potato: big hot brown round
    onion: red round big fresh
    tomato: red ripe big juicy
    peach: soft ripe sweet juicy
    melon: green big sweet round
    banana: yellow ripe long sweet
    muffin: sweet warm little fresh
    pancake: warm round big sweet
    sandwich: big cheese fresh tasty
    rose: red white pretty yellow
    tulip: yellow red tall pink
    sunflower: tall yellow big bright
    pebble: white smooth tiny gray
    crystal: blue shiny clear purple
    pearl: white shiny big round
    bracelet: golden pretty silver pink
    medal: golden shiny round silver
    wand: magic silver long wooden
    sword: wooden toy shiny long
    mask: funny red paper old
    hoop: big red wooden blue
    kettle: old copper little black
    sponge: soft yellow big wet
    towel: blue soft big striped`),
}

export const heldOut: Words = {
  names: names('Tim Bob Sammy Peter Rex Fred Danny Joe', 'Anna Sue Lola Amy Jane Kate Mimi Sally'),
  animals: list('bear monkey sheep deer dragon parrot giraffe bunny dinosaur hippo kangaroo spider'),
  things: things(`
    crown: golden paper shiny
    cookie: big sweet round
    boat: toy paper little
    coin: silver golden old
    blanket: warm blue soft
    flute: wooden silver little
    jewel: green shiny red
    glove: red woolly warm
    egg: white blue big
    shoe: red old little
    jar: glass big blue
    truck: red toy yellow`),
}

/** Who else turns up in the stories: no held-out animal. */
export const companions = list(
  'owl toad goose mole badger hen duck rabbit turtle mouse crow frog goat otter squirrel hedgehog cat dog beaver snail',
)
export const adjectives = list(
  'small little clever brave shy merry gentle curious young cheerful kind busy friendly quiet hungry playful',
)
export const places = [
  'by the river',
  'near the old mill',
  'at the edge of the forest',
  'on a small farm',
  'behind a green hill',
  'under a tall oak tree',
  'in a quiet valley',
  'beside a pond',
  'at the end of a long lane',
  'close to the village',
  'in a garden full of roses',
  'near the sea',
  'at the foot of a mountain',
]
export const times = [
  'one morning',
  'one day',
  'one sunny afternoon',
  'one cold morning',
  'early one day',
  'one rainy day',
  'one evening',
  'one spring day',
]
/** Where a lost thing lies. */
export const spots = [
  'in the tall grass',
  'under a bush',
  'beside the path',
  'next to a puddle',
  'behind a log',
  'at the foot of a tree',
  'near the well',
  'under a bench',
  'by the garden gate',
  'between two rocks',
]
export const hidingPlaces = [
  'in a hollow tree',
  'under the floor',
  'behind a loose brick',
  'deep in a pile of leaves',
  'under the roots of an old tree',
  'at the back of the shed',
]
/** Where things are kept, in the questions. */
export const keepingPlaces = [
  'under the bed',
  'on the top shelf',
  'in the kitchen',
  'behind the door',
  'in the attic',
  'next to the window',
  'in the garden shed',
  'under the stairs',
  'beside the fireplace',
  'in the cellar',
]
