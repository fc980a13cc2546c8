/** `{"text": "...", "weight"?}`: plain text, of which every token carries loss. */
import { optionalWeight, requireText } from '../rows.ts'
import type { Layout } from './layout.ts'

export const text: Layout = {
  name: 'text',
  title: 'plain text',
  key: 'text',
  jsonKeys: ['weight'],
  evidence: (row) => ('text' in row ? '"text"' : undefined),
  convert(row, source) {
    const content = requireText(row.text, 'text')
    const weight = optionalWeight(row.weight, 'weight')
    return { text: content, ...(weight !== undefined && { weight }), source }
  },
}
