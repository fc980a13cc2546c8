/** Makes requests with answers: short stories about a given animal, name and thing, and questions about a passage. */

import { Random } from '../random.ts'
import type { Request } from './check-answer.ts'
import { type EventName, endings, introductions, requests, type Shape, shapes, verbs } from './story-grammar.ts'
import * as vocabulary from './words.ts'
import { heldOut, type Name, type Thing, training, type Words } from './words.ts'

export interface Demonstration extends Request {
  answer: string
}

export const DEMONSTRATIONS = 900
export const HELD_OUT_PROMPTS = 100
const SEED = 7
/** One request in so many is a question, the others ask for a story. */
const QUESTION_EVERY = 3

const article = (words: string) => `${/^[aeiou]/i.test(words) ? 'an' : 'a'} ${words}`
const capital = (words: string) => words.charAt(0).toUpperCase() + words.slice(1)

/** Fills a template of story-grammar.ts. An unknown key is an error of the grammar. */
export function expand(template: string, values: (key: string) => string, random: Random): string {
  return template
    .replaceAll(/\[([^\]]*)\]/g, (_, parts: string) => random.pick(parts.split('|')))
    .replaceAll(/\{(a )?(\w+)\}/gi, (_, before: string | undefined, key: string) => {
      if (key === 'N') return values(key)
      const word = values(key.toLowerCase())
      const text = before ? article(word) : word
      return /^[A-Z]/.test(before ?? key) ? capital(text) : text
    })
}

const pronouns = {
  he: { he: 'he', him: 'him', his: 'his', himself: 'himself' },
  she: { he: 'she', him: 'her', his: 'her', himself: 'herself' },
}

interface Subject {
  name: Name
  animal: string
  noun: string
  /** Adjective and noun. */
  thing: string
}

function subject(words: Words, random: Random): Subject {
  const { noun, adjectives } = random.pick<Thing>(words.things)
  return {
    name: random.pick(words.names),
    animal: random.pick(words.animals),
    noun,
    thing: `${random.pick(adjectives)} ${noun}`,
  }
}

/** The words of one story: what is drawn once stays, times and spots never come twice. */
function lexicon({ name, animal, noun, thing }: Subject, random: Random): (key: string) => string {
  const fixed: Record<string, string> = {
    N: name.text,
    animal,
    noun,
    thing,
    ...pronouns[name.pronoun],
    friend: random.pick(vocabulary.companions.filter((companion) => companion !== animal)),
  }
  const drawn: Record<string, string[]> = {
    adj: random.shuffle(vocabulary.adjectives),
    place: random.shuffle(vocabulary.places),
    time: random.shuffle(vocabulary.times),
    spot: random.shuffle(vocabulary.spots),
    hiding: random.shuffle(vocabulary.hidingPlaces),
  }
  return (key) => {
    const word = fixed[key] ?? drawn[key]?.pop()
    if (word === undefined) throw new RangeError(`The grammar has no word for {${key}}.`)
    return word
  }
}

const events = Object.keys(shapes) as EventName[]

function tellStory(about: Subject, event: EventName, random: Random): string {
  const values = lexicon(about, random)
  const shape: Shape = random.pick(shapes[event])
  const slots = [introductions, ...shape, endings]
  const sentences = slots.map((alternatives) => expand(random.pick(alternatives), values, random))
  return sentences.join(' ')
}

function storyRequest(about: Subject, random: Random): Demonstration {
  const event = random.pick(events)
  const values = lexicon(about, random)
  const [present, past] = verbs[event]
  const prompt = expand(random.pick(requests).replace('{verb}', present).replace('{past}', past), values, random)
  return {
    kind: 'story',
    prompt,
    mentions: [about.name.text, about.animal, about.thing],
    avoids: [],
    answer: tellStory(about, event, random),
  }
}

const keeps = ['keeps', 'hides', 'leaves']

/** A passage about two animals and a question about one of them. */
function questionRequest(about: Subject, other: Subject, random: Random): Demonstration {
  const [here, there] = random.shuffle(vocabulary.keepingPlaces) as [string, string]
  const verb = random.pick(keeps)
  const sentence = ({ name, animal, thing }: Subject, place: string) =>
    `${name.text} the ${animal} ${verb} ${article(thing)} ${place}.`
  const passage = random.shuffle([sentence(about, here), sentence(other, there)]).join(' ')
  const base = verb.slice(0, -1)
  const name = about.name.text
  const [question, answer, mention, avoid] = random.pick([
    [`What does ${name} ${base}?`, `${name} ${verb} ${article(about.thing)}.`, about.thing, other.thing],
    [
      `Who ${verb} the ${about.thing}?`,
      `${name} the ${about.animal} ${verb} the ${about.thing}.`,
      name,
      other.name.text,
    ],
    [`Where does ${name} ${base} the ${about.thing}?`, `${name} ${verb} the ${about.thing} ${here}.`, here, there],
  ] as const)
  return { kind: 'question', prompt: `${passage} ${question}`, mentions: [mention], avoids: [avoid], answer }
}

function different(words: Words, about: Subject, random: Random): Subject {
  for (;;) {
    const other = subject(words, random)
    if (other.name !== about.name && other.animal !== about.animal && other.noun !== about.noun) return other
  }
}

const combination = ({ name, animal, noun }: Subject) => `${name.text} ${animal} ${noun}`

function make(count: number, words: (index: number) => Words, used: Set<string>, random: Random): Demonstration[] {
  const made: Demonstration[] = []
  while (made.length < count) {
    const about = subject(words(made.length), random)
    if (used.has(combination(about))) continue
    used.add(combination(about))
    made.push(
      made.length % QUESTION_EVERY === QUESTION_EVERY - 1
        ? questionRequest(about, different(training, about, random), random)
        : storyRequest(about, random),
    )
  }
  return made
}

/** Half of the held-out requests take one to three of their words from the held-out lists. */
function heldOutWords(index: number): Words {
  const fresh = [0, 0b001, 0, 0b010, 0, 0b100, 0, 0b111][index % 8]!
  return {
    names: fresh & 0b001 ? heldOut.names : training.names,
    animals: fresh & 0b010 ? heldOut.animals : training.animals,
    things: fresh & 0b100 ? heldOut.things : training.things,
  }
}

/** Every demonstration and held-out request, always the same; no name, animal and thing come together twice. */
export function makeAll(): { demonstrations: Demonstration[]; heldOut: Demonstration[] } {
  const random = new Random(SEED)
  const used = new Set<string>()
  const demonstrations = make(DEMONSTRATIONS, () => training, used, random)
  return { demonstrations, heldOut: make(HELD_OUT_PROMPTS, heldOutWords, used, random) }
}
