/** A conversation in a terminal or a pipe: what each line does. Knows neither streams nor signals of the process. */
import { appendFile, open } from 'node:fs/promises'
import { containerOf } from '../data/containers/names.ts'
import type { Message } from '../data/conversation.ts'
import type { Completion } from '../generate/index.ts'
import { closest } from '../trainer/option-names.ts'

/** Who answers: a model, with a history of its own. */
export interface Speaker {
  name: string
  stream(messages: readonly Message[], signal: AbortSignal): AsyncGenerator<string, Completion>
}

/** Where things are shown. */
export interface Display {
  /** Before an answer where several are compared. */
  heading(name: string): void
  piece(text: string): void
  /** After an answer. */
  end(): void
  /** What is no part of the conversation. */
  note(text: string): void
}

export const chatHelp = `/system TEXT   begins anew with a system message; without TEXT, with none
/reset         begins anew
/save FILE     appends the conversation to FILE (.jsonl) as a row of training data
/help          this list
/exit          leaves; so does the end of input
//...          says what begins with a slash
Ctrl-C         stops the answer; a second one leaves`

const commands = ['/system', '/reset', '/save', '/help', '/exit']

export class ChatSession {
  readonly #speakers: readonly Speaker[]
  readonly #histories: Message[][]
  readonly #display: Display
  #system: string | undefined
  #answering: AbortController | undefined
  #interrupted = false

  /** @param speakers answer in this order; the last one's conversation is what /save saves */
  constructor(speakers: readonly Speaker[], display: Display, system?: string) {
    this.#speakers = speakers
    this.#histories = speakers.map(() => [])
    this.#display = display
    this.#system = system
  }

  /** Does what `line` says. Resolves with whether to leave. */
  async take(line: string): Promise<boolean> {
    this.#interrupted = false
    if (line.trim() === '') return false
    if (line.startsWith('//')) await this.#say(line.slice(1))
    else if (line.startsWith('/')) return this.#command(line.trim())
    else await this.#say(line)
    return false
  }

  /** Ends the answer where one is being given. Returns what to do: leave at the second time in a row. */
  interrupt(): 'leave' | 'go on' | 'ask again' {
    if (this.#interrupted) {
      this.#answering?.abort()
      return 'leave'
    }
    this.#interrupted = true
    if (this.#answering) {
      this.#answering.abort()
      return 'go on'
    }
    this.#display.note('Ctrl-C again leaves, and so does /exit')
    return 'ask again'
  }

  async #command(line: string): Promise<boolean> {
    const [name = '', ...words] = line.split(' ')
    const rest = words.join(' ').trim()
    const { note } = this.#display
    if (name !== '/system' && name !== '/save' && commands.includes(name) && rest !== '') {
      note(`${name} takes nothing; found '${rest}'`)
    } else if (name === '/exit') {
      return true
    } else if (name === '/help') {
      note(chatHelp)
    } else if (name === '/reset') {
      this.#begin(this.#system)
      note('a new conversation')
    } else if (name === '/system') {
      this.#begin(rest === '' ? undefined : rest)
      note(`a new conversation, ${rest === '' ? 'without a system message' : 'with this system message'}`)
    } else if (name === '/save') {
      await this.#save(rest)
    } else {
      const hint = closest(name, commands)
      note(
        `no command ${name}${hint ? `; did you mean ${hint}?` : ''} (/help lists them; // says what begins with a slash)`,
      )
    }
    return false
  }

  #begin(system: string | undefined): void {
    this.#system = system
    for (const history of this.#histories) history.length = 0
  }

  async #say(text: string): Promise<void> {
    const abort = new AbortController()
    this.#answering = abort
    try {
      for (const [index, speaker] of this.#speakers.entries()) {
        if (abort.signal.aborted) return
        if (this.#speakers.length > 1) this.#display.heading(speaker.name)
        const turn = await this.#answer(
          speaker,
          [...this.#histories[index]!, { role: 'user', content: text }],
          abort.signal,
        )
        // A turn without an answer is as if it had not been said.
        if (turn) this.#histories[index]!.push({ role: 'user', content: text }, turn)
      }
    } finally {
      this.#answering = undefined
    }
  }

  /** The assistant's turn as it is remembered; one that was cut short has the weight 0, so that nobody learns to stop there. */
  async #answer(speaker: Speaker, messages: readonly Message[], signal: AbortSignal): Promise<Message | undefined> {
    const { piece, end, note } = this.#display
    const pieces = speaker.stream(this.#withSystem(messages), signal)
    let said = ''
    try {
      for (;;) {
        const { value, done } = await pieces.next()
        if (done) {
          end()
          if (value.finishReason === 'length') note(`cut after ${value.tokens.length} tokens`)
          const turn = value.message ?? { role: 'assistant', content: value.text }
          if (!turn.tool_calls && !turn.content?.trim()) {
            note('no answer: the model ended its turn at once')
            return undefined
          }
          return value.finishReason === 'stop' ? turn : { ...turn, weight: 0 }
        }
        said += value
        piece(value)
      }
    } catch (error) {
      end()
      if (!signal.aborted) {
        note(`${(error as Error).message}${messages.length > 1 ? ' (/reset begins anew)' : ''}`)
        return undefined
      }
      note('stopped')
      return said.trim() === '' ? undefined : { role: 'assistant', content: said, weight: 0 }
    }
  }

  #withSystem(messages: readonly Message[]): Message[] {
    return [...(this.#system === undefined ? [] : [{ role: 'system' as const, content: this.#system }]), ...messages]
  }

  async #save(path: string): Promise<void> {
    const { note } = this.#display
    const history = this.#histories.at(-1)!
    if (path === '') return note('/save needs the name of a file')
    if (containerOf(path) !== 'jsonl' || !/\.(jsonl|ndjson)$/i.test(path))
      return note(`/save writes JSON lines: name the file .jsonl, not ${path}`)
    if (!history.some(({ role, weight }) => role === 'assistant' && weight !== 0))
      return note('nothing to save: there is no whole answer yet')
    try {
      const row = JSON.stringify({ messages: this.#withSystem(history) })
      await appendFile(path, `${(await endsInLine(path)) ? '' : '\n'}${row}\n`)
      note(`saved as one row of ${path}`)
    } catch (error) {
      note(`not saved: ${(error as Error).message}`)
    }
  }
}

/** Whether a new line may begin at the end of the file: it is empty, absent, or ends in a newline. */
async function endsInLine(path: string): Promise<boolean> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (!file) return true
  try {
    const { size } = await file.stat()
    const { buffer, bytesRead } = await file.read(Buffer.alloc(1), 0, 1, Math.max(0, size - 1))
    return bytesRead === 0 || buffer[0] === 0x0a
  } finally {
    await file.close()
  }
}
