/** What an adapter is, whoever says so: the options of a run, or the adapter_config.json of a folder. */

export interface AdapterSettings {
  rank: number
  alpha: number
  /** Of the adapters' inputs while training, 0 to below 1. */
  dropout: number
  /** 'all-linear'; names or endings of modules; or, as one text, a regular expression for whole names. */
  targets: string | string[]
  /** Regular expressions for the ends of module names, and what is theirs instead. The first that fits counts. */
  rankPattern: Record<string, number>
  alphaPattern: Record<string, number>
  /** Factor alpha / √rank instead of alpha / rank. */
  rslora: boolean
  dora: boolean
}
