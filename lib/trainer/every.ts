/** How often something happens: a number of steps, or '30s', '10m', '2h', '1epoch', '0.5epoch'. */
export type Every = { steps: number } | { seconds: number } | { epochs: number }

export const everyExpectation = "a number of steps from 1 up, or a text such as '10m' or '0.5epoch'"

const seconds = { s: 1, m: 60, h: 3600 }

/** The interval that `input` means, or nothing where it means none. */
export function parseEvery(input: number | string): Every | undefined {
  if (typeof input === 'number') return Number.isSafeInteger(input) && input >= 1 ? { steps: input } : undefined
  const match = /^(\d+(?:\.\d+)?|\.\d+)\s*(steps?|s|m|h|epochs?)$/.exec(input.trim())
  const amount = Number(match?.[1])
  const unit = match?.[2]
  if (unit === undefined || !(amount > 0)) return undefined
  if (unit.startsWith('epoch')) return { epochs: amount }
  if (unit.startsWith('step')) return parseEvery(amount)
  return { seconds: amount * seconds[unit as keyof typeof seconds] }
}
