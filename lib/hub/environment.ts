/** What the environment says about the hub, in the variables that huggingface_hub reads. */
import { getHFHubCachePath, HUB_URL } from '@huggingface/hub'
import { TunesmithError } from '../errors.ts'

export interface HubEnvironment {
  /** HF_ENDPOINT, else https://huggingface.co. */
  endpoint: string
  /** HF_TOKEN. */
  token: string | undefined
  /** HF_HUB_OFFLINE: the network is not used. */
  offline: boolean
  /** HF_HUB_CACHE, else `hub` under HF_HOME, else ~/.cache/huggingface/hub. */
  cacheFolder: string
  /** Milliseconds before a failed request is tried again; doubled each time. */
  retryDelay: number
}

export function hubEnvironment(): HubEnvironment {
  const { HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE } = process.env
  checkEndpoint(HF_ENDPOINT)
  return {
    endpoint: (HF_ENDPOINT || HUB_URL).replace(/\/+$/, ''),
    token: HF_TOKEN?.trim() || undefined,
    offline: /^(1|true|yes|on)$/i.test(HF_HUB_OFFLINE ?? ''),
    cacheFolder: getHFHubCachePath(),
    retryDelay: 500,
  }
}

function checkEndpoint(endpoint: string | undefined): void {
  if (!endpoint || (URL.canParse(endpoint) && /^https?:/.test(endpoint))) return
  throw new TunesmithError(
    'ERR_HUB_UNREACHABLE',
    `HF_ENDPOINT is ${JSON.stringify(endpoint)}, which is no address; it is one such as https://huggingface.co, or unset`,
  )
}
