/** Python's strftime in the C locale, as strftime_now of chat templates needs it. */

const MONTHS = 'January February March April May June July August September October November December'.split(' ')
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ')

/** Local time, for the directives that make sense in a prompt. */
export function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, '0')
  const hour12 = date.getHours() % 12 || 12
  const startOfYear = new Date(date.getFullYear(), 0, 0)
  const dayOfYear = Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) -
      Date.UTC(startOfYear.getFullYear(), startOfYear.getMonth(), startOfYear.getDate())) /
      86_400_000,
  )
  const values: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    e: () => String(date.getDate()).padStart(2, ' '),
    H: () => two(date.getHours()),
    I: () => two(hour12),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    B: () => MONTHS[date.getMonth()]!,
    b: () => MONTHS[date.getMonth()]!.slice(0, 3),
    A: () => DAYS[date.getDay()]!,
    a: () => DAYS[date.getDay()]!.slice(0, 3),
    j: () => String(dayOfYear).padStart(3, '0'),
    F: () => strftime(date, '%Y-%m-%d'),
    T: () => strftime(date, '%H:%M:%S'),
    '%': () => '%',
  }
  return format.replace(/%(-?)(.)/gs, (directive, dash: string, letter: string) => {
    const value = values[letter]
    if (!value) throw new Error(`strftime_now: unknown directive ${directive}`)
    return dash ? value().replace(/^[0 ]+(?=.)/, '') : value()
  })
}
