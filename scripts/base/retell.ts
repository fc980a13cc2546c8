/**
 * Variations of the stories that make a small model copy from its context. TinyStories uses so few names and plots that a
 * model of this size predicts them from memory; fine-tuned, it then answers about an animal of the demonstrations instead
 * of the one in the prompt.
 */
import type { Random } from '../random.ts'
import { training } from './words.ts'

/** Chances that a character gets a made-up name, an animal or a thing becomes another, some words announce a story. */
const RENAMED = 0.6
const SWAPPED = 0.5
const ANNOUNCED = 0.5
const ANNOUNCED_WORDS = [3, 5] as const
/** A capitalised word is a name when it stands in the middle of sentences this often, and rarely in small letters. */
const NAME_OCCURRENCES = 25
/** Words among so many commonest ones say nothing about a story. */
const PLAIN_WORDS = 250
const NO_NAMES = new Set(
  'Mr Mrs God Santa Papa Sunday Monday Tuesday Wednesday Thursday Friday Saturday June'.split(' '),
)

const tally = (occurrences: Map<string, number>, key: string) => occurrences.set(key, (occurrences.get(key) ?? 0) + 1)

export class Retelling {
  readonly #names = new Set<string>()
  readonly #plain: Set<string>

  constructor(stories: readonly string[]) {
    const capitalized = new Map<string, number>()
    const small = new Map<string, number>()
    for (const story of stories) {
      for (const [, word] of story.matchAll(/[a-z,] ([A-Z][a-z]+)\b/g)) tally(capitalized, word!)
      for (const [word] of story.matchAll(/\b[a-z]+\b/g)) tally(small, word)
    }
    for (const [word, times] of capitalized) {
      const often = times >= NAME_OCCURRENCES && times > 3 * (small.get(word.toLowerCase()) ?? 0)
      if (often && !NO_NAMES.has(word)) this.#names.add(word)
    }
    const sorted = [...small].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
    this.#plain = new Set(sorted.slice(0, PLAIN_WORDS).map(([word]) => word))
  }

  /** The story with other names, animals and things, and perhaps a line of some of its words before it. */
  retell(story: string, random: Random): string {
    const retold = swapNouns(this.#rename(story, random), random)
    return random.next() < ANNOUNCED ? this.#announce(retold, random) : retold
  }

  #rename(story: string, random: Random): string {
    const names = new Map<string, string>()
    return story.replaceAll(/\b[A-Z][a-z]+\b/g, (word) => {
      if (!this.#names.has(word)) return word
      const known = names.get(word)
      if (known !== undefined) return known
      const name = random.next() < RENAMED ? madeUpName(random) : word
      names.set(word, name)
      return name
    })
  }

  #announce(story: string, random: Random): string {
    const words = story.match(/(?<=[a-z,] )[A-Z][a-z]+\b|\b[a-z]{3,}\b/g) ?? []
    const telling = [...new Set(words)].filter((word) => !this.#plain.has(word))
    if (telling.length === 0) return story
    const chosen = random.shuffle(telling).slice(0, random.between(...ANNOUNCED_WORDS))
    return `A story with the words ${chosen.join(', ')}.\n${story}`
  }
}

const kinds = [training.animals, training.things.map(({ noun }) => noun)]
const kindOf = new Map(kinds.flatMap((kind) => kind.map((noun) => [noun, kind] as const)))
const plural = (noun: string) =>
  /(?:s|x|ch|sh)$/.test(noun) ? `${noun}es` : noun.replace(/(?<=[^aeiou])y$/, 'ie').concat('s')
const singular = new Map([...kindOf.keys()].map((noun) => [plural(noun), noun]))

/** Turns some animals into other animals and some things into other things, from first to last. */
function swapNouns(story: string, random: Random): string {
  const swapped = new Map<string, string>()
  return story.replaceAll(/\b(?:(an?) )?([a-z]{3,})\b/gi, (text, article: string | undefined, word: string) => {
    const noun = kindOf.has(word) ? word : singular.get(word)
    if (noun === undefined) return text
    let other = swapped.get(noun)
    if (other === undefined) {
      other = random.next() < SWAPPED ? random.pick(kindOf.get(noun)!) : noun
      swapped.set(noun, other)
    }
    const form = noun === word ? other : plural(other)
    if (article === undefined) return form
    return `${article.charAt(0)}${/^[aeiou]/.test(form) ? 'n' : ''} ${form}`
  })
}

const onsets =
  'b bl br c ch cl d dr f fl g gl gr h j k l m n p pl pr qu r s sh sk sl sm sn sp st t th tr v w y z'.split(' ')
const vowels = 'a e i o u ee oo ai'.split(' ')
const codas = ' b ck d ff g l ll m n nt p r rk s ss t tch x y zz'.split(' ')

/** One or two syllables, so that hardly any name comes in two stories. */
function madeUpName(random: Random): string {
  const syllables = random.between(1, 2)
  let name = ''
  for (let syllable = 0; syllable < syllables; syllable++) name += random.pick(onsets) + random.pick(vowels)
  name += random.pick(codas)
  return name.charAt(0).toUpperCase() + name.slice(1)
}
