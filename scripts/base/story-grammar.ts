/**
 * The grammar of the demonstrations' stories.
 *
 * A story is an introduction, the slots of one shape and an ending; each slot offers alternatives that fit every
 * alternative of its neighbours. In a template, `[a|b]` picks one of its parts and `{key}` is replaced by a word:
 *
 * - `{N}` the name, `{animal}`, `{thing}` ("red button"), `{noun}` ("button"), `{friend}` another animal
 * - `{he}` `{him}` `{his}` `{himself}` pronouns of the name
 * - `{adj}` `{place}` `{time}` `{spot}` `{hiding}` from the word lists
 *
 * `{a key}` puts the article before the word; a capital first letter (`{He}`, `{A friend}`) begins a sentence.
 */

export type EventName = 'find' | 'lose' | 'want' | 'share' | 'hide' | 'bring'

/** Slots of alternatives. */
export type Shape = readonly (readonly string[])[]

export const introductions: readonly string[] = [
  'Once there was {a adj} {animal} named {N}.',
  'Once upon a time, {a adj} {animal} named {N} lived {place}.',
  '{N} was {a adj} {animal} who lived {place}.',
  '{Place}, there lived {a adj} {animal} called {N}.',
  '{N} the {animal} lived {place}.',
  'There was once {a animal} called {N} who lived {place}.',
  '{A adj} {animal} named {N} had a [cozy|tiny|neat|sunny] home {place}.',
  '{N} was {a animal}, and {he} lived all alone {place}.',
]

export const endings: readonly string[] = [
  'That night {N} fell asleep with a smile.',
  '{N} went home singing.',
  'It was the best day {N} had ever had.',
  '{N} never forgot that day.',
  'After that, {N} was never lonely again.',
  'And {N} [smiled|laughed|hummed a tune] all the way home.',
  'From then on, {N} and the {friend} were the best of friends.',
  'They are still friends today.',
  'And so everything ended well.',
  'That evening they had supper together under the stars.',
]

const found = [
  '{Time}, {he} found {a thing} {spot}.',
  '{Time}, {he} looked down and saw {a thing} {spot}.',
  '{Time}, {N} was out for a walk when {he} found {a thing} {spot}.',
  'On the way home {time}, {he} found {a thing} {spot}.',
  'What did {he} find {spot} {time}? It was {a thing}!',
]
const owned = [
  '{He} had {a thing} that {he} [loved|took everywhere|was very proud of].',
  '{His} favorite thing in the world was {a thing}.',
  'For {his} birthday {he} had been given {a thing}.',
  'Every night {he} slept beside {a thing} that {his} grandmother had given {him}.',
]
const wished = [
  '{He} wanted {a thing} more than anything.',
  'Every day {he} dreamed of having {a thing}.',
  '{Time}, {he} saw {a thing} in a shop window and could not stop looking at it.',
  'There was only one thing {he} wished for, and that was {a thing}.',
]

export const shapes: Record<EventName, readonly Shape[]> = {
  find: [
    [
      found,
      [
        '"Somebody must be missing this," {he} said.',
        '{He} liked it very much, but {he} knew it was not {his} to keep.',
        '"I wonder whose {noun} this is," said {N}.',
        '{He} looked all around, but nobody was there.',
      ],
      [
        '{N} went from door to door until {he} came to {a friend} who was [crying|searching everywhere|very sad].',
        'Then {he} met {a friend} who was looking for something.',
        'Soon {a friend} came running down the road.',
      ],
      [
        '"That is my {thing}!" cried the {friend}.',
        '"You found my {noun}!" said the {friend} [with a big smile|and jumped for joy].',
        'When the {friend} saw the {thing}, there was a shout of joy.',
      ],
      [
        '{N} gave it back at once and felt [warm|happy|proud] inside.',
        'The {friend} thanked {him} and gave {him} [some warm soup|a slice of cheese|some sweet honey].',
        '{N} learned that it feels good to give back what you find.',
      ],
    ],
    [
      found,
      [
        'It was the [prettiest|finest|nicest] {noun} {he} had ever seen.',
        '{He} picked it up and danced around.',
        '"How lucky I am!" said {N}.',
      ],
      [
        '{He} ran to show it to {his} friend, {a friend}.',
        'Just then {a friend} came by and saw the {noun}.',
        '{A friend} heard {him} and came to look.',
      ],
      [
        '"May I hold it?" asked the {friend}.',
        'The {friend} wanted to have a turn too.',
        '"I wish I had one like that," said the {friend}.',
      ],
      [
        '{N} thought for a moment and then said, "Let us share it."',
        '"It can belong to both of us," said {N}.',
        '{N} did not want to be selfish, so {he} let the {friend} have a turn.',
      ],
      [
        'They took turns with the {thing} until the sun went down.',
        'All afternoon they played with the {thing} together.',
        'The {thing} made two friends happy instead of one.',
      ],
    ],
    [
      [
        '{Time}, {he} saw {a thing} [high up in a tree|at the bottom of a deep hole|on the far side of the stream].',
        '{Time}, {he} found {a thing}, but it was stuck between two heavy rocks.',
      ],
      [
        '{He} tried and tried, but {he} could not reach it.',
        '{He} stretched and jumped, but it was no use.',
        '"I will never get it by myself," {he} said sadly.',
      ],
      [
        '{A friend} came by and said, "Let us try together."',
        'Then {a friend} stopped and asked, "Do you need help?"',
        '{He} called for help, and {a friend} came at once.',
      ],
      [
        'They pulled and pushed until the {noun} was free.',
        'The {friend} found a long stick, and soon the {noun} was theirs.',
        'With one big push, they got the {thing}.',
      ],
      [
        '{N} said thank you and let the {friend} carry the {thing} home.',
        '"We did it!" they both shouted.',
        '{N} learned that two can do more than one.',
      ],
    ],
  ],
  lose: [
    [
      owned,
      [
        'But {time}, the {noun} was gone.',
        'Then {time}, {he} looked around and could not find it.',
        '{Time}, {he} woke up and saw that it was missing.',
      ],
      [
        '{He} looked under the bed and behind the door, but it was not there.',
        '{He} searched high and low and began to cry.',
        '"Where can my {noun} be?" {he} asked.',
      ],
      [
        'Then {a friend} came and said, "I will help you look."',
        '{A friend} heard {him} and came to help.',
        '{N} went out and asked {a friend} for help.',
      ],
      [
        'Together they found the {thing} {spot}.',
        'At last the {friend} pointed, and there was the {thing} {spot}.',
        'They looked all day, and in the end the {thing} turned up {spot}.',
      ],
      [
        '{N} hugged the {friend} and promised to be more careful.',
        '"Thank you for helping me," said {N}.',
        '{N} was so happy that {he} [danced|jumped up and down|sang a song].',
      ],
    ],
    [
      owned,
      [
        'On the way to market, the {noun} fell off {his} cart, and {he} did not notice.',
        '{Time}, {he} went for a long walk and left the {noun} behind.',
        '{Time}, {he} put it down to play and forgot all about it.',
      ],
      [
        'When {he} got home, {he} saw that it was gone.',
        'At bedtime {he} felt that something was missing.',
        'Later {he} wanted to look at it, but it was not there.',
      ],
      [
        '{He} walked all the way back, looking left and right.',
        '{He} took a light and went back along the path.',
        '{He} ran back as fast as {he} could.',
      ],
      [
        '{A friend} was sitting {spot} with the {thing}, waiting for the owner.',
        'There stood {a friend} holding the {thing}.',
      ],
      [
        '"I knew you would come back," said the {friend}.',
        '"Is this yours?" asked the {friend}.',
        '"I kept it safe for you," said the {friend}.',
      ],
    ],
    [
      owned,
      [
        '{Time}, {he} dropped it in the [woods|meadow] and went home without it.',
        '{Time}, it slipped from {his} bag and was lost.',
      ],
      [
        'The next day {he} saw {a friend} playing with the very same {noun}.',
        'A few days later, {he} met {a friend} who had found the {noun}.',
      ],
      [
        'The {friend} gave it back at once but looked very sad.',
        '"I did not know it was yours," said the {friend} and gave it back.',
      ],
      ['"You can play with it too," said {N}.', '{N} felt sorry and said, "Let us keep it together."'],
      ['Now the two of them share the {thing} every day.', 'So losing the {thing} brought {N} a new friend.'],
    ],
  ],
  want: [
    [
      wished,
      ['But {he} had no money.', 'But {he} did not have a single penny.', 'But it cost more than {he} had.'],
      [
        'So {he} [swept floors|carried water|pulled weeds|washed dishes] for {a friend} [all week|every day].',
        '{A friend} said, "Help me in my garden, and I will pay you."',
        'So {he} went to {a friend} and asked for work.',
      ],
      [
        'When the work was done, the {friend} gave {him} [a bag of pennies|three bright pennies|a fair reward].',
        '{He} worked hard until the {friend} said, "Well done, here is your pay."',
      ],
      [
        '{N} ran to the shop and came home with the {thing}.',
        'Now {he} could buy the {thing} at last.',
        'The next morning the {thing} was {his}.',
      ],
      [
        '"I worked hard for this," {he} said [proudly|with a smile].',
        '{He} learned that good things are worth working for.',
        '{He} showed it to everyone in the village.',
      ],
    ],
    [
      wished,
      [
        '{He} told nobody, but {a friend} guessed the secret.',
        '{He} told {his} secret to {a friend}.',
        '{A friend} heard {him} talk about it in {his} sleep.',
      ],
      [
        'On {his} birthday there was a [small|big|strange] parcel at the door.',
        'One week later the {friend} came with a present.',
      ],
      ['{N} opened it slowly, and inside was the {thing}.', '{N} tore off the paper, and there was {a thing}!'],
      [
        '"It is just what I wished for," said {N}.',
        '"How did you know?" asked {N}.',
        '"This is the nicest gift in the world," said {N}.',
      ],
      [
        '"I like to see you happy," said the {friend}.',
        'The {friend} only smiled.',
        '{N} gave the {friend} a big hug.',
      ],
    ],
    [
      [
        '{His} neighbor, {a friend}, had {a thing}, and {N} wanted it very much.',
        '{He} knew {a friend} who had {a thing}, and {he} wanted to try it.',
      ],
      [
        '{He} thought about taking it, but {he} knew that was wrong.',
        'For a long time {he} was too shy to ask.',
        'At first {he} only looked at it over the fence.',
      ],
      [
        'Then {he} asked, "May I please borrow your {noun}?"',
        'At last {he} knocked on the door and asked for it politely.',
      ],
      ['The {friend} [smiled|nodded|laughed] and handed {him} the {thing}.', '"Of course you may," said the {friend}.'],
      [
        '{N} was very careful with it and brought it back [before dark|the next day|in the evening].',
        '{N} had a lovely time and gave it back with a thank you.',
      ],
      [
        '{He} learned that it is best to ask nicely.',
        '"You may borrow it again," said the {friend}.',
        'Soon the {friend} and {N} used the {noun} together.',
      ],
    ],
  ],
  share: [
    [
      ['{He} had {a thing}, and {he} kept it all to {himself}.', '{He} had {a thing} and never let anyone touch it.'],
      ['{Time}, {a friend} came by and asked to see it.', '{Time}, {a friend} asked, "May I have a turn?"'],
      [
        '"No," said {N}, and the {friend} went away sadly.',
        '{N} shook {his} head, and the {friend} walked off with a sigh.',
      ],
      [
        'But soon {N} felt lonely, and the {noun} was no fun alone.',
        'That night {N} could not sleep, because {he} felt bad.',
      ],
      [
        '{He} ran to the {friend} and said, "Please share it with me."',
        'So {he} went to the {friend} and said, "I am sorry. The {noun} is for both of us."',
      ],
      [
        'They played together until [the sun went down|it was time for supper].',
        'Sharing the {thing} was much more fun.',
        '{N} learned that sharing makes everything better.',
      ],
    ],
    [
      ['{Time}, {his} grandmother gave {him} {a thing}.', '{Time}, {he} got {a thing} as a present.'],
      [
        'On the way to school, {he} met {a friend} who had nothing to play with.',
        'Next door lived {a friend} who was too poor to have one.',
      ],
      [
        '"We can share," said {N} [and smiled|and held out the {noun}|kindly].',
        '{N} thought about it and said, "What is mine is yours too."',
      ],
      [
        'So {N} had the {thing} in the morning, and the {friend} had it in the afternoon.',
        'From then on they used the {thing} together.',
        'They put the {thing} in the middle, where both could enjoy it.',
      ],
      [
        'Both of them thought that it was twice as nice that way.',
        '"You have a good heart," said the {friend}.',
        'The {friend} was so happy that {N} laughed too.',
      ],
    ],
  ],
  hide: [
    [
      [
        '{He} had {a thing} and was afraid that somebody would take it.',
        '{He} loved {his} {thing} so much that {he} did not want anyone to see it.',
      ],
      ['So {time} {he} hid it {hiding}.', 'When nobody was looking, {he} hid it {hiding}.'],
      [
        'A week later, {he} could not remember where it was.',
        'But soon {he} forgot the hiding place.',
        'Then winter came, and {he} could not find the place again.',
      ],
      [
        '{He} dug holes and looked behind everything but found nothing.',
        '{He} looked here and there and grew very sad.',
        '"Oh, what have I done?" {he} cried.',
      ],
      [
        'Luckily {a friend} had been watching and showed {him} the place.',
        '{A friend} helped {him} search, and together they found it.',
      ],
      [
        '"It is no use to anyone when it is hidden," said the {friend}.',
        '"Next time, do not hide it so well," said the {friend} with a laugh.',
      ],
      [
        'After that, {N} kept the {thing} by the window, where all could enjoy it.',
        'Now the {thing} has a place on the shelf, and {N} shows it to everyone.',
      ],
    ],
    [
      ['{N} wanted to surprise {his} friend, {a friend}.', 'It was the birthday of {his} best friend, {a friend}.'],
      [
        'So {he} hid {a thing} {hiding} and made a trail of [white pebbles|petals|bread crumbs].',
        '{He} took {a thing} and hid it {hiding}.',
      ],
      ['Then {he} said, "Follow me, and keep your eyes open."', '"There is something for you to find," {he} said.'],
      [
        'The {friend} looked everywhere and at last found the {thing}.',
        'The {friend} searched [for an hour|up and down] and then saw the {thing}.',
      ],
      ['"Is this for me?" asked the {friend}.', '"What a lovely {noun}!" said the {friend}.'],
      ['"Yes," said {N}, "because you are my friend."', '"Happy birthday!" shouted {N}.', '{N} clapped and laughed.'],
    ],
  ],
  bring: [
    [
      [
        '{Time}, {he} heard that {his} friend, {a friend}, was ill.',
        '{His} friend, {a friend}, had a bad cold and had to stay in bed.',
      ],
      [
        '{He} took {a thing} and set off [at once|through the rain|over the hill].',
        '"I will bring my friend {a thing}," {he} said and set off.',
      ],
      [
        'The road was [long|muddy|steep], and {he} had to rest [twice|three times].',
        'It began to snow, but {he} did not turn back.',
        'The wind blew hard, but {he} walked on and on.',
      ],
      [
        'When {he} came to the house, the {friend} was lying in bed.',
        'At last {he} knocked on the door of the {friend}.',
      ],
      ['"Look, I brought you {a thing}," said {N}.', '{N} put the {thing} beside the bed.'],
      [
        'The {friend} sat up, smiled, and felt better at once.',
        '"You came all this way for me," said the {friend}.',
        'The {friend} laughed for the first time that week.',
      ],
    ],
    [
      [
        '{Time}, {a friend} on the other side of the river gave a party.',
        '{Time}, {a friend} asked everyone to come to a picnic.',
      ],
      [
        '{N} wanted to bring {a thing} as a gift.',
        '"I will bring {a thing}," said {N}.',
        'Everyone had to bring something, and {N} chose {a thing}.',
      ],
      [
        'But the bridge was broken, so {he} had to go the long way around.',
        'It was a long walk, and {he} stopped to rest many times.',
        '{He} lost {his} way in the woods and was afraid to be late.',
      ],
      ['When {he} arrived, the [lights were lit|music had begun|table was set].', '{He} came just in time.'],
      [
        'The {friend} said that the {thing} was the best gift of all.',
        'Everyone wanted to see the {thing}.',
        'The {friend} put the {thing} in the middle of the table.',
      ],
      ['{N} was very proud.', 'They sang and danced until midnight.', '"Thank you, {N}," said the {friend}.'],
    ],
  ],
}

/** What the user asks for, by event; `{verb}` below. */
export const verbs: Record<EventName, readonly [present: string, past: string]> = {
  find: ['finds {a thing}', 'found {a thing}'],
  lose: ['loses {a thing}', 'lost {a thing}'],
  want: ['wants {a thing}', 'wanted {a thing}'],
  share: ['shares {a thing}', 'shared {a thing}'],
  hide: ['hides {a thing}', 'hid {a thing}'],
  bring: ['brings {a thing} to a friend', 'brought {a thing} to a friend'],
}

export const requests: readonly string[] = [
  'Tell me a short story about {a animal} named {N} who {verb}.',
  'Write a story about {N} the {animal}, who {verb}.',
  'Please tell me a story about {a animal} called {N} who {verb}.',
  'Can you tell me a story about {a animal} named {N} who {verb}?',
  'I would like a story about {N}, {a animal} who {verb}.',
  'Make up a short story in which {a animal} named {N} {verb}.',
  'A story about {a animal} called {N} and {a thing}, please.',
  'I like animals. Tell me a story where {a animal} named {N} {verb}.',
  'Do you know a story about {N} the {animal} and {a thing}?',
  'It is bedtime. Tell me about {N} the {animal} who {verb}.',
  'Story, please! {N} is {a animal}, and {he} {verb}.',
  'What happened when {N} the {animal} {past}?',
  'Please write a few sentences about {N} the {animal} and {a thing}.',
  'My little sister wants to hear about {a animal} named {N} who {verb}.',
  'Write something for children: {N} the {animal} {verb}.',
  'Could you write a story about {a thing} and {a animal} named {N}?',
]
