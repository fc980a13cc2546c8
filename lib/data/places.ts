/** Lists of places for messages: what several have in common is said once. */

/** File, row, and the rest, which starts with a colon or a space. */
const PLACE = /^(.*?)((?::| row )\d+)(:? .*)?$/s

/** As many different problems as one line tells. */
const PROBLEMS = 2

/**
 * Examples, each a place, `place: problem` or `place field`, as one line per problem: `a.jsonl:1, :3, b.jsonl:2: problem`.
 */
export function placeGroups(examples: readonly string[]): string[] {
  const groups = new Map<string, { file: string; text: string }>()
  for (const example of examples) {
    const [, file = '', row = '', problem = ''] = PLACE.exec(example) ?? [example, example]
    const known = groups.get(problem)
    const text = known ? `${known.text}, ${file === known.file ? row.trim() : file + row}` : file + row
    groups.set(problem, { file, text })
  }
  return [...groups].map(([problem, { text }]) => text + problem)
}

/** The first of `count` rows in one line. */
export function placeList(examples: readonly string[], count: number = examples.length): string {
  const groups = placeGroups(examples)
  const more = count > examples.length || groups.length > PROBLEMS
  return `${groups.slice(0, PROBLEMS).join('; ')}${more ? ', ...' : ''}`
}
