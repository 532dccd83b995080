// What all pictures share: numbers for people, ticks, and the stretch of an axis that is looked at.

/** A number with four digits, or with as many as tell it from its neighbours `step` away. */
function plain(value, step) {
  if (value === null || !Number.isFinite(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  const digits = step ? Math.max(1, Math.min(12, Math.ceil(Math.log10(size / step)) + 1)) : 4;
  if (size >= 1e7 || size < 1e-4) return value.toExponential(Math.max(0, digits - 1)).replace(/\.?0+e/, 'e').replace('e+', 'e');
  const text = value.toLocaleString('en', { maximumSignificantDigits: Math.max(digits, Math.min(12, Math.ceil(Math.log10(size)))) });
  return text;
}

/** Round values between two bounds, about `count` of them; of logarithms, where the axis is one. */
function ticks(low, high, count, log) {
  if (!(high > low)) return { values: [low], step: 1 };
  if (log && high - low > 1.2) {
    const step = Math.max(1, Math.ceil((high - low) / count));
    const values = [];
    for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power++) if (power % step === 0) values.push(power);
    return { values, step: 0 };
  }
  const [from, to] = log ? [10 ** low, 10 ** high] : [low, high];
  const rough = (to - from) / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
  const values = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) values.push(log ? Math.log10(i * step) : i * step);
  return { values, step };
}

/** The part of [low, high] that is shown. It never leaves these bounds, and never gets shorter than `least`. */
class View {
  constructor(low, high, least) { Object.assign(this, { low, high, least }); this.reset(); }
  reset() { this.from = this.low; this.to = this.high; }
  set(from, to) {
    const length = Math.min(Math.max(to - from, this.least), this.high - this.low);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - length / 2, this.low), this.high - length);
    this.to = this.from + length;
  }
  zoom(factor, at) { this.set(at - (at - this.from) * factor, at + (this.to - at) * factor); }
  move(share) { const by = share * (this.to - this.from); this.set(this.from + by, this.to + by); }
}

/**
 * Let wheel, keys and pointer change a view, and tell of each change.
 *
 * `place(event)` is the value of the axis under the pointer. A wheel zooms only where the picture was clicked, or with Ctrl, so
 * that a page can be scrolled. `drag` is 'move', or 'choose' to zoom into the stretch that was drawn: then `chosen(from, to)` shows
 * it while it grows.
 */
function control(element, view, { place, redraw, drag, chosen = () => {} }) {
  const changed = () => {
    element.dataset.from = view.from;
    element.dataset.to = view.to;
    redraw();
  };
  const middle = () => (view.from + view.to) / 2;
  const acts = {
    in: () => view.zoom(0.5, middle()), out: () => view.zoom(2, middle()),
    left: () => view.move(-0.25), right: () => view.move(0.25), all: () => view.reset(),
  };
  const act = (name) => { acts[name](); changed(); };
  const keys = { '+': 'in', '=': 'in', '-': 'out', ArrowLeft: 'left', ArrowRight: 'right', 0: 'all', Home: 'all' };
  element.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    act(keys[event.key]);
  });
  element.addEventListener('wheel', (event) => {
    if (!(event.ctrlKey || element.contains(document.activeElement))) return;
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) view.move(event.deltaX / 1000);
    else view.zoom(1.0015 ** event.deltaY, place(event));
    changed();
  }, { passive: false });
  element.addEventListener('dblclick', (event) => { if (!event.target.closest('button')) act('all'); });
  let began = null;
  element.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || event.target.closest('button, .legend')) return;
    began = { at: place(event), x: event.clientX };
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener('pointermove', (event) => {
    if (began === null) return;
    if (drag === 'move') { const by = began.at - place(event); view.set(view.from + by, view.to + by); changed(); }
    else chosen(began.at, place(event));
  });
  const end = (event) => {
    if (began === null) return;
    const [first, second] = [began.at, place(event)].sort((a, b) => a - b);
    const far = Math.abs(event.clientX - began.x) > 5;
    began = null;
    if (drag === 'choose') chosen(null);
    if (drag === 'choose' && far && event.type === 'pointerup') { view.set(first, second); changed(); }
  };
  element.addEventListener('pointerup', end);
  element.addEventListener('pointercancel', end);
  changed();
  return act;
}

/** A box that says what is under the pointer; its text is in `element.dataset.hover` too. */
function tooltip(element) {
  const box = document.createElement('div');
  box.className = 'tip';
  box.hidden = true;
  element.append(box);
  return (text, x = 0, y = 0) => {
    box.hidden = !text;
    element.dataset.hover = text || '';
    if (!text) return;
    box.textContent = text;
    const right = x + 16 + box.offsetWidth > element.clientWidth;
    box.style.left = `${Math.max(0, right ? x - 16 - box.offsetWidth : x + 16)}px`;
    box.style.top = `${y + 12}px`;
  };
}

const DASHES = ['', '7 3', '2 3', '9 3 2 3', '12 4', '4 2 1 2', '1 2', '6 2 2 2 2 2'];
const colour = (series) => `var(--c${series % 8})`;
const dash = (series) => DASHES[(series + Math.floor(series / 8)) % 8];

/** An SVG element with attributes. */
function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The colour and dash of a series, as in a legend. */
function sample(series) {
  const line = svg('line', { x1: 0, x2: 30, y1: 5, y2: 5, 'stroke-width': 3, 'stroke-dasharray': dash(series) });
  line.style.stroke = colour(series);
  return svg('svg', { viewBox: '0 0 30 10', 'aria-hidden': 'true' }, line);
}
