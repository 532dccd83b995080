// Curves and histograms: SVG, so that colours follow the screen's and print well.

const MARGIN = { left: 68, right: 26, top: 10, bottom: 44 };

/**
 * Draw a chart in `element`, and let it be zoomed along its horizontal axis; the vertical one follows what is seen.
 *
 * spec: { x: {label, log, labels}, y: {label, log}, height, lines: [{name, series, x, y, low, high, thin}] }, or instead of lines
 * bars: [{name, series, y}], one value for each of x.labels. Values that are null, or <= 0 on a log axis, leave a gap.
 * Returns a function that draws another spec in its place.
 */
function chart(element, spec) {
  const tip = tooltip(element);
  const legend = document.createElement('ul');
  legend.className = 'legend';
  const holder = document.createElement('div');
  element.prepend(legend, holder);
  let view, scales, width = 0, box = null;

  const items = () => spec.lines || spec.bars;
  const onX = (value) => (spec.x.log ? Math.log10(value) : value);
  const onY = (value) => (value === null ? NaN : spec.y.log ? (value > 0 ? Math.log10(value) : NaN) : value);

  function extent() {
    if (spec.bars) return [0, Math.max(spec.x.labels.length, 6)];
    const all = spec.lines.flatMap((line) => line.x.map(onX)).filter(Number.isFinite);
    const low = all.reduce((a, b) => Math.min(a, b), Infinity), high = all.reduce((a, b) => Math.max(a, b), -Infinity);
    return all.length ? (high > low ? [low, high] : [low - 0.5, high + 0.5]) : [0, 1];
  }

  function heights() {
    const seen = [];
    for (const item of items()) {
      if (spec.bars) item.y.forEach((y, i) => { if (i + 1 > view.from && i < view.to) seen.push(onY(y)); });
      else item.x.forEach((value, i) => {
        const next = item.x[i + 1], before = item.x[i - 1];
        const out = (onX(value) < view.from && !(onX(next) > view.from)) || (onX(value) > view.to && !(onX(before) < view.to));
        if (!out) for (const side of [item.y, item.low, item.high]) if (side) seen.push(onY(side[i]));
      });
    }
    const good = seen.filter(Number.isFinite);
    if (!good.length) return [0, 1];
    let low = good.reduce((a, b) => Math.min(a, b)), high = good.reduce((a, b) => Math.max(a, b));
    if (spec.zero && !spec.y.log) low = Math.min(low, 0);
    if (spec.bars && spec.y.log) low = Math.floor(low) - 0.3;
    if (spec.zero && high === low) high = low + 1;
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    return [spec.zero && low === 0 ? 0 : low - pad, high + pad];
  }

  function draw() {
    const height = spec.height || 300;
    const [low, high] = heights();
    const inner = { width: Math.max(width - MARGIN.left - MARGIN.right, 10), height: height - MARGIN.top - MARGIN.bottom };
    const sx = (v) => MARGIN.left + ((v - view.from) / (view.to - view.from)) * inner.width;
    const sy = (v) => MARGIN.top + (1 - (v - low) / (high - low)) * inner.height;
    scales = { sx, sy, inner };
    const root = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' });
    axisX(root, sx, inner, height);
    axisY(root, sy, low, high, inner);
    const id = `clip-${element.dataset.plot}-${element.dataset.key}`;
    root.append(svg('clipPath', { id }, svg('rect', { x: MARGIN.left, y: MARGIN.top, width: inner.width, height: inner.height })));
    const group = svg('g', { 'clip-path': `url(#${id})` });
    if (spec.bars) bars(group, sx, sy, inner); else spec.lines.forEach((line) => curve(group, line, sx, sy));
    box = svg('rect', { class: 'chosen', y: MARGIN.top, height: inner.height, visibility: 'hidden' });
    root.append(group, box, svg('line', { class: 'cursor', y1: MARGIN.top, y2: MARGIN.top + inner.height, visibility: 'hidden' }));
    holder.replaceChildren(root);
  }

  function label(text, attributes) {
    return svg('text', attributes, document.createTextNode(text));
  }

  function axisX(root, sx, inner, height) {
    const base = MARGIN.top + inner.height;
    const count = Math.max(2, Math.floor(inner.width / 90));
    let marks;
    if (spec.x.labels) {
      const every = Math.max(1, Math.ceil((view.to - view.from) / (inner.width / 62)));
      marks = spec.x.labels.map((text, i) => [i + 0.5, text]).filter(([at], i) => i % every === 0 && at >= view.from && at <= view.to);
    } else {
      const found = ticks(view.from, view.to, count, spec.x.log);
      marks = found.values.map((v) => [v, plain(spec.x.log ? 10 ** v : v, found.step)]);
    }
    for (const [at, text] of marks) {
      if (!spec.x.labels) root.append(svg('line', { class: 'grid', x1: sx(at), x2: sx(at), y1: MARGIN.top, y2: base }));
      root.append(label(text, { x: sx(at), y: base + 17, 'text-anchor': 'middle' }));
    }
    root.append(svg('line', { class: 'axis', x1: MARGIN.left, x2: MARGIN.left + inner.width, y1: base, y2: base }));
    root.append(label(spec.x.label, { x: MARGIN.left + inner.width / 2, y: height - 6, 'text-anchor': 'middle' }));
  }

  function axisY(root, sy, low, high, inner) {
    const found = ticks(low, high, 5, spec.y.log);
    for (const at of found.values) {
      if (at < low || at > high) continue;
      root.append(svg('line', { class: 'grid', x1: MARGIN.left, x2: MARGIN.left + inner.width, y1: sy(at), y2: sy(at) }));
      root.append(label(plain(spec.y.log ? 10 ** at : at, found.step), { x: MARGIN.left - 8, y: sy(at) + 4, 'text-anchor': 'end' }));
    }
    const middle = MARGIN.top + inner.height / 2;
    root.append(label(spec.y.label, { x: 13, y: middle, 'text-anchor': 'middle', transform: `rotate(-90 13 ${middle})` }));
  }

  /** A path through the points that can be drawn; a new piece begins after each that cannot. */
  function path(line, side, sx, sy) {
    let text = '', open = false;
    line.x.forEach((x, i) => {
      const px = sx(onX(x)), py = sy(onY(side[i]));
      if (!Number.isFinite(px) || !Number.isFinite(py)) { open = false; return; }
      text += `${open ? 'L' : 'M'}${px.toFixed(1)} ${py.toFixed(1)}`;
      open = true;
    });
    return text;
  }

  function curve(group, line, sx, sy) {
    if (line.low) {
      const there = line.x.map((_, i) => i).filter((i) => Number.isFinite(onY(line.low[i])) && Number.isFinite(onY(line.high[i])));
      const at = (i, side) => `${sx(onX(line.x[i])).toFixed(1)} ${sy(onY(side[i])).toFixed(1)}`;
      const points = [...there.map((i) => at(i, line.high)), ...there.reverse().map((i) => at(i, line.low))];
      const band = svg('path', { d: points.length ? `M${points.join('L')}Z` : '', opacity: 0.18 });
      band.style.fill = colour(line.series);
      group.append(band);
    }
    const drawn = svg('path', {
      d: path(line, line.y, sx, sy), fill: 'none', 'stroke-width': line.thin ? 1 : 2, 'stroke-linejoin': 'round',
      'stroke-dasharray': line.thin ? '5 4' : dash(line.series),
    });
    drawn.style.stroke = colour(line.series);
    group.append(drawn);
    const dots = line.thin || line.x.length > 40 ? [] : line.x;
    dots.forEach((x, i) => {
      if (!Number.isFinite(onY(line.y[i])) || !Number.isFinite(onX(x))) return;
      const dot = svg('circle', { cx: sx(onX(x)), cy: sy(onY(line.y[i])), r: 2.6 });
      dot.style.fill = colour(line.series);
      group.append(dot);
    });
  }

  function bars(group, sx, sy, inner) {
    const slot = sx(1) - sx(0), each = (slot * 0.86) / spec.bars.length, base = MARGIN.top + inner.height;
    spec.bars.forEach((bar, k) => bar.y.forEach((y, i) => {
      const top = sy(onY(y));
      if (!y || !Number.isFinite(top)) return;
      const drawn = svg('rect', { x: sx(i) + slot * 0.07 + k * each, width: Math.max(each - 0.5, 0.5), y: top, height: Math.max(base - top, 0) });
      drawn.style.fill = colour(bar.series);
      group.append(drawn);
    }));
  }

  /** What stands at a place of the horizontal axis, in words. */
  function told(at) {
    if (spec.bars) {
      const i = Math.min(Math.max(Math.floor(at), 0), spec.x.labels.length - 1);
      return { x: i + 0.5, text: [`${spec.x.label} ${spec.x.labels[i]}`, ...spec.bars.map((b) => `${b.name}: ${plain(b.y[i])} ${spec.y.unit || ''}`)] };
    }
    let nearest = null;
    const rows = spec.lines.filter((line) => !line.thin && line.x.length).map((line) => {
      const places = line.x.map(onX);
      let i = 0;
      places.forEach((v, j) => { if (Math.abs(v - at) < Math.abs(places[i] - at)) i = j; });
      if (nearest === null || Math.abs(places[i] - at) < Math.abs(nearest - at)) nearest = places[i];
      const band = line.low ? ` (${plain(line.low[i])} to ${plain(line.high[i])})` : '';
      return `${line.name}: ${plain(line.y[i])}${band} at ${plain(line.x[i])}`;
    });
    return { x: nearest, text: nearest === null ? [] : [spec.y.label, ...rows] };
  }

  const place = (event) => {
    const left = holder.getBoundingClientRect().left;
    return view.from + ((event.clientX - left - MARGIN.left) / scales.inner.width) * (view.to - view.from);
  };
  function hover(event) {
    const found = told(place(event));
    const cursor = holder.querySelector('.cursor');
    const off = found.x === null || found.x < view.from || found.x > view.to;
    cursor.setAttribute('visibility', off ? 'hidden' : 'visible');
    if (off) { tip(''); return; }
    for (const side of ['x1', 'x2']) cursor.setAttribute(side, scales.sx(found.x));
    const frame = element.getBoundingClientRect();
    tip(found.text.join('\n'), event.clientX - frame.left, event.clientY - frame.top);
  }
  element.addEventListener('pointermove', hover);
  element.addEventListener('pointerleave', () => { tip(''); holder.querySelector('.cursor').setAttribute('visibility', 'hidden'); });

  function chosen(from, to) {
    box.setAttribute('visibility', from === null ? 'hidden' : 'visible');
    if (from === null) return;
    const [a, b] = [from, to].map(scales.sx).sort((p, q) => p - q);
    box.setAttribute('x', a);
    box.setAttribute('width', b - a);
  }

  function show(next) {
    spec = next;
    const named = items().filter((item) => !item.thin);
    legend.hidden = named.length < 2;
    legend.replaceChildren(...named.map((item) => {
      const entry = document.createElement('li'), mark = document.createElement('span');
      mark.className = 'swatch';
      mark.append(sample(item.series));
      entry.append(mark, item.name);
      return entry;
    }));
    const [low, high] = extent();
    if (view) Object.assign(view, { low, high, least: (high - low) / 1e6 }); else view = new View(low, high, (high - low) / 1e6);
    view.reset();
    if (scales) { element.dataset.from = view.from; element.dataset.to = view.to; draw(); }
  }

  show(spec);
  width = element.clientWidth;
  control(element, view, { place, redraw: draw, drag: 'choose', chosen });
  new ResizeObserver(() => {
    if (element.clientWidth !== width) { width = element.clientWidth; draw(); }
  }).observe(element);
  element.dataset.ready = 'true';
  return show;
}
