/** Numbers as people read them. */

const integers = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })
const hundredths = new Intl.NumberFormat('en-US', { maximumFractionDigits: 2 })

/** 1234567 → '1,234,567' */
export function count(value: number): string {
  return integers.format(value)
}

/** '1 step', '2 steps', '0.33 epochs' */
export function plural(value: number, noun: string): string {
  // What is there is not nothing, however small.
  const text = value > 0 && value < 0.01 ? String(Number(value.toPrecision(1))) : hundredths.format(value)
  return `${text} ${noun}${text === '1' ? '' : 's'}`
}

/** Bytes in KiB, MiB or GiB, three digits. */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[unit]}`
}

/** Seconds as '0.4s', '8s', '1m 05s', '2h 03m', '3d 04h'. */
export function duration(seconds: number): string {
  if (seconds >= 0.05 && seconds < 0.95) return `${seconds.toFixed(1)}s`
  const whole = Math.max(0, Math.round(seconds))
  const two = (value: number) => String(value).padStart(2, '0')
  if (whole < 60) return `${whole}s`
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`
  return `${Math.floor(whole / 86400)}d ${two(Math.floor((whole % 86400) / 3600))}h`
}

/** 0.4567 → '45.7 %' */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}

/** Rows of two columns, the first padded; a row of one is a heading. */
export function table(rows: readonly (readonly [string, string] | readonly [string])[]): string {
  const width = Math.max(...rows.map(([name, value]) => (value === undefined ? 0 : name.length)))
  return rows
    .map(([name, value]) => (value === undefined ? `\n${name}` : `  ${name.padEnd(width)}  ${value}`))
    .join('\n')
    .replace(/^\n/, '')
}
