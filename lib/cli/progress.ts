/** What a run shows: a bar on a terminal, a line per step in a pipe, or one JSON event per line. */
import type { TrainerEmitter } from '../trainer/events.ts'
import type { Streams } from './command.ts'
import { showBar } from './progress-bar.ts'
import { showJson, showLines } from './progress-lines.ts'

/** Ends the display, whatever became of the run; safe to call twice. */
export type Close = () => void

/**
 * Shows the events of `trainer` until the returned function is called.
 *
 * @param linesEvery in a pipe, one line for so many steps
 */
export function showProgress(trainer: TrainerEmitter, streams: Streams, json: boolean, linesEvery = 1): Close {
  if (json) return showJson(trainer, streams)
  return streams.stdout.isTTY ? showBar(trainer, streams) : showLines(trainer, streams, linesEvery)
}
