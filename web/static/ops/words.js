/**
 * Figures in words, short enough for a tile.
 *
 * @module words
 */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const FINE = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A number of things. */
export const count = (n) => (n >= 100_000 ? SHORT.format(n) : WHOLE.format(n));

/** A rate or ratio. */
export const fine = (n) => (n >= 1000 ? count(n) : FINE.format(n));

/** A time, from seconds: 1.2 ms, 3.4 s, 5 min, 2.1 h. */
export function span(seconds) {
  if (seconds < 1) return `${FINE.format(seconds * 1000)} ms`;
  if (seconds < 100) return `${FINE.format(seconds)} s`;
  if (seconds < 6000) return `${FINE.format(seconds / 60)} min`;
  return `${FINE.format(seconds / 3600)} h`;
}

/** An amount of memory, from bytes. */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = n < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(n) / 10));
  return `${FINE.format(n / 1024 ** power)} ${units[power]}`;
}
