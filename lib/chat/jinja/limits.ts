/**
 * How much one rendering may do. A template that does not come to an end, or that fills the memory, is refused; what
 * templates of models do stays far below. Rendering is synchronous, so one set of counters serves all.
 */

/** Statements, loop rounds and macro calls. Templates of models need a few dozen per message. */
const MAX_STEPS = 5_000_000
/** Longest text, in UTF-16 units, and all text that is made on the way. */
const MAX_TEXT = 1 << 26
const MAX_ALL_TEXT = 2 ** 29
/** Longest list, and all elements that are listed, copied, compared or written. */
const MAX_LIST = 1 << 20
const MAX_ALL_ELEMENTS = 1 << 23

let steps = 0
let characters = 0
let elements = 0

/** Before each rendering. */
export function resetLimits(): void {
  steps = 0
  characters = 0
  elements = 0
}

/** @throws Error where the template does not come to an end */
export function step(): void {
  if (++steps > MAX_STEPS) throw new Error(`the chat template does more than ${MAX_STEPS} steps for one conversation`)
}

/** Before a text of `length` is made. @throws Error where that is too much */
export function checkText(length: number): void {
  characters += length
  if (length > MAX_TEXT) throw new Error(`the chat template makes a text of more than ${MAX_TEXT} characters`)
  if (characters > MAX_ALL_TEXT) throw tooMuch(MAX_ALL_TEXT, 'characters')
}

/** Before a list of `length` is made or gone through. @throws Error where that is too much */
export function checkList(length: number): void {
  elements += length
  if (length > MAX_LIST) throw new Error(`the chat template makes a list of more than ${MAX_LIST} elements`)
  if (elements > MAX_ALL_ELEMENTS) throw tooMuch(MAX_ALL_ELEMENTS, 'elements')
}

function tooMuch(limit: number, what: string): Error {
  return new Error(`the chat template handles more than ${limit} ${what} for one conversation`)
}
