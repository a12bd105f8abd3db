// A justified layout: rows that fill the width, in which each photo keeps its shape.

const SHAPES = [0.45, 3.2]; // photos that are narrower or wider than this are cut

/**
 * Lay photos out.
 * @param {{shape: number, group: number}[]} items shape: width / height; a group begins a row
 * @param {number} width pixels
 * @param {{height: number, gap: number, heading: number}} wanted height of a row and of a group's heading
 *   (0: none), pixels
 * @returns {{boxes: {x, y, width, height}[], rows: {y, height, first, last}[], headings: {y, group}[], height}}
 *   rows hold the items `first` to `last`
 */
export function justify(items, width, { height, gap, heading }) {
  const boxes = [];
  const rows = [];
  const headings = [];
  let y = 0;
  for (let first = 0; first < items.length; ) {
    const { group } = items[first];
    if (heading && (first === 0 || items[first - 1].group !== group)) {
      headings.push({ y, group });
      y += heading;
    }
    let last = first;
    let shapes = clamp(items[first].shape);
    const room = (count) => width - gap * (count - 1);
    // A row takes photos while it is higher than wanted; the last one may make it too low by half of that.
    while (last + 1 < items.length && items[last + 1].group === group && room(last - first + 1) / shapes > height) {
      const wider = shapes + clamp(items[last + 1].shape);
      const [now, then] = [room(last - first + 1) / shapes, room(last - first + 2) / wider];
      if (height - then > now - height) break;
      shapes = wider;
      last += 1;
    }
    const full = room(last - first + 1) / shapes;
    const ends = last + 1 === items.length || items[last + 1].group !== group;
    const rowHeight = Math.round(ends ? Math.min(full, height) : full);
    let x = 0;
    for (let index = first; index <= last; index++) {
      const filling = index === last && rowHeight === Math.round(full);
      const wide = filling ? width - x : Math.round(clamp(items[index].shape) * rowHeight);
      boxes.push({ x, y, width: Math.max(1, wide), height: rowHeight });
      x += wide + gap;
    }
    rows.push({ y, height: rowHeight, first, last });
    y += rowHeight + gap;
    first = last + 1;
  }
  return { boxes, rows, headings, height: Math.max(0, y - gap) };
}

const clamp = (shape) => Math.min(SHAPES[1], Math.max(SHAPES[0], shape));

/** Return the first and last row of a layout between two heights; null if there is none. */
export function rowsBetween(rows, top, bottom) {
  const first = rows.findIndex((row) => row.y + row.height >= top);
  if (first < 0 || rows[first].y > bottom) return null;
  let last = first;
  while (last + 1 < rows.length && rows[last + 1].y <= bottom) last += 1;
  return [first, last];
}
