/** Noncharacters that mark the ends of a `{% generation %}` block; Unicode keeps them for such internal use. */
export const BLOCK_START = '\ufdd0'
export const BLOCK_END = '\ufdd1'
