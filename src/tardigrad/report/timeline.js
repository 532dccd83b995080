// Who worked when: a row a worker, a bar a task, on a canvas, since there may be a hundred thousand of them.

const LEFT = 64, TOP = 12, BOTTOM = 40;
const COLUMNS = ['received', 'held', 'busy', 'waited', 'task', 'client', 'worker', 'applied', 'staleness'];
/** How dark a worker is that is always busy, where its tasks are too short to be seen or left out. */
const SHADE = 0.8;
const MARKS = { died: ['✕', '--bad'], raised: ['!', '--bad'], slow: ['▲', '--warn'], replaced: ['○', '--good'] };

/** The bytes of a packed array. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The columns of the tasks, see html_timeline.py: times in seconds, everything else a whole number. */
async function tasksOf(data) {
  const bytes = await unpacked(data.tasks), n = data.n, columns = {};
  COLUMNS.forEach((name, c) => {
    const values = new Int32Array(n), start = c * 4 * n;
    for (let i = 0; i < n; i++) {
      const at = start + i;
      values[i] = bytes[at] | (bytes[at + n] << 8) | (bytes[at + 2 * n] << 16) | (bytes[at + 3 * n] << 24);
    }
    columns[name] = values;
  });
  for (const name of ['received', 'task', 'applied']) for (let i = 1; i < n; i++) columns[name][i] += columns[name][i - 1];
  const seconds = (from, ...minus) => Float64Array.from(from, (v, i) => minus.reduce((sum, other) => sum - other[i], v) * data.tick);
  const { received, held, busy, waited } = columns;
  return {
    ...columns, received: seconds(received), finished: seconds(received, held), started: seconds(received, held, busy),
    submitted: seconds(received, held, busy, waited),
  };
}

/** Draw a run's timeline in `element`. */
async function timeline(element, data) {
  const tasks = await tasksOf(data);
  const busy = data.busy ? await unpacked(data.busy) : null;
  const bins = busy ? busy.length / data.workers.length : 0;
  const rows = data.workers.map(() => []);
  for (let i = 0; i < data.n; i++) rows[tasks.worker[i]].push(i);
  rows.forEach((row) => row.sort((a, b) => tasks.started[a] - tasks.started[b]));

  const tall = Math.max(7, Math.min(30, Math.floor(420 / rows.length)));
  const height = TOP + tall * rows.length + BOTTOM;
  const view = new View(0, data.seconds, Math.max(data.seconds * 1e-9, data.tick * 20));
  const tools = document.createElement('div'), said = document.createElement('output');
  const canvas = document.createElement('canvas');
  tools.className = 'tools';
  canvas.setAttribute('aria-hidden', 'true');
  element.append(tools, canvas);
  const tip = tooltip(element);
  const pen = canvas.getContext('2d');
  let width = 0, inner = 1, act = () => {};

  const x = (second) => LEFT + ((second - view.from) / (view.to - view.from)) * inner;
  const y = (row) => TOP + row * tall;
  const bar = Math.max(3, Math.round(tall * 0.68));
  const place = (event) => view.from + ((event.clientX - canvas.getBoundingClientRect().left - LEFT) / inner) * (view.to - view.from);

  function draw() {
    const scale = window.devicePixelRatio || 1;
    width = Math.max(element.clientWidth, 200);
    inner = width - LEFT - 14;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(element), ink = (name) => style.getPropertyValue(name).trim();
    const colours = Array.from({ length: 8 }, (_, i) => ink(`--c${i}`));
    frame(ink);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, inner, height);
    pen.clip();
    if (busy) shades(colours[0], ink);
    for (const [from, to] of data.windows) stretch(from, to, colours, ink);
    incidents(ink);
    pen.restore();
    const step = (view.to - view.from) / 100;
    said.textContent = `${plain(view.from, step)} s to ${plain(view.to, step)} s`;
  }

  /** Rows, their names, and the axis. */
  function frame(ink) {
    pen.font = '12px system-ui, sans-serif';
    const found = ticks(view.from, view.to, Math.max(2, Math.floor(inner / 110)));
    pen.textAlign = 'center';
    for (const at of found.values) {
      pen.fillStyle = ink('--line');
      pen.fillRect(x(at), TOP, 1, tall * rows.length + 4);
      pen.fillStyle = ink('--soft');
      pen.fillText(plain(at, found.step), Math.min(x(at), width - 16), height - BOTTOM + 17);
    }
    pen.fillText('seconds', LEFT + inner / 2, height - 6);
    const every = Math.ceil(14 / tall);
    pen.textAlign = 'right';
    rows.forEach((_, row) => {
      pen.fillStyle = ink('--faint');
      pen.fillRect(LEFT, y(row) + (tall - bar) / 2, inner, bar);
      pen.fillStyle = ink('--soft');
      if (row % every === 0) pen.fillText(data.workers[row], LEFT - 8, y(row) + tall / 2 + 4);
    });
    pen.save();
    pen.translate(13, TOP + (tall * rows.length) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = 'center';
    if (tall * rows.length > 50) pen.fillText('worker', 0, 0);
    pen.restore();
  }

  /** How busy workers were, where tasks are left out; a line above marks where they are not. */
  function shades(tint, ink) {
    const columns = Array.from({ length: Math.ceil(inner) }, (_, at) => {
      const second = (pixel) => view.from + (pixel / inner) * (view.to - view.from);
      const bin = (pixel) => Math.min(bins - 1, Math.floor((second(pixel) / data.seconds) * bins));
      return [bin(at), bin(at + 1)];
    });
    pen.fillStyle = tint;
    rows.forEach((_, row) => columns.forEach(([first, last], at) => {
      let sum = 0;
      for (let i = first; i <= last; i++) sum += busy[row * bins + i];
      pen.globalAlpha = (SHADE * sum) / (255 * (last - first + 1));
      pen.fillRect(LEFT + at, y(row) + (tall - bar) / 2, 1, bar);
    }));
    pen.globalAlpha = 1;
    pen.fillStyle = ink('--ink');
    for (const [from, to] of data.windows) pen.fillRect(x(from), 4, Math.max(x(to) - x(from), 2), 3);
  }

  /** The tasks between two times. Those too short to be seen alone are summed up as shades of a pixel. */
  function stretch(from, to, colours, ink) {
    const [low, high] = [Math.max(from, view.from), Math.min(to, view.to)];
    if (!(high > low)) return;
    const [left, right] = [Math.round(x(low)), Math.round(x(high))], pixel = (view.to - view.from) / inner;
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, Math.max(right - left, 1), height);
    pen.clip();
    if (busy) pen.clearRect(left, TOP, Math.max(right - left, 1), tall * rows.length);
    rows.forEach((row, number) => {
      const top = y(number) + (tall - bar) / 2, sums = new Float32Array(Math.ceil(inner) + 2), tints = new Uint8Array(sums.length);
      if (busy) { pen.fillStyle = ink('--faint'); pen.fillRect(left, top, right - left, bar); }
      for (let k = Math.max(firstAfter(row, low) - 2, 0); k < row.length && tasks.started[row[k]] <= high; k++) {
        const i = row[k], begun = tasks.started[i], done = tasks.finished[i];
        if (tasks.received[i] < low) continue;
        if (done - begun < 1.5 * pixel) {
          spread(sums, tints, tasks.client[i] % 8, x(begun) - LEFT, x(done) - LEFT);
          continue;
        }
        pen.fillStyle = colours[tasks.client[i] % 8];
        const [a, b] = [x(begun), x(done)];
        pen.fillRect(a, top, Math.max(b - a - (b - a > 4 ? 1 : 0), 0.7), bar);
        if (tasks.received[i] - done > pixel) {
          pen.fillStyle = ink('--soft');
          pen.fillRect(b, top + bar / 2 - 1, x(tasks.received[i]) - b, 2);
        }
      }
      sums.forEach((sum, at) => {
        if (!sum) return;
        pen.fillStyle = colours[tints[at]];
        pen.globalAlpha = SHADE * Math.min(1, Math.max(0.15, sum));
        pen.fillRect(LEFT + at, top, 1, bar);
      });
      pen.globalAlpha = 1;
    });
    pen.restore();
  }

  /** Add a short task's share of each pixel that it touches; a pixel has the colour of the last one. */
  function spread(sums, tints, tint, from, to) {
    for (let at = Math.max(0, Math.floor(from)); at < to && at < sums.length; at++) {
      sums[at] += Math.max(Math.min(to, at + 1) - Math.max(from, at), 0);
      tints[at] = tint;
    }
  }

  /** The first task of a row that begins after a time. */
  function firstAfter(row, second) {
    let [low, high] = [0, row.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tasks.started[row[middle]] > second) high = middle; else low = middle + 1;
    }
    return low;
  }

  function incidents(ink) {
    pen.textAlign = 'center';
    pen.font = 'bold 14px system-ui, sans-serif';
    for (const { at, worker, kind } of data.incidents) {
      const row = data.workers.indexOf(worker);
      if (row < 0 || at < view.from || at > view.to) continue;
      const [mark, tint] = MARKS[kind] || MARKS.raised;
      pen.fillStyle = ink(tint);
      pen.fillRect(x(at) - 0.5, TOP, 1, tall * rows.length);
      pen.strokeStyle = ink('--back');
      pen.lineWidth = 4;
      pen.strokeText(mark, x(at), y(row) + tall / 2 + 5);
      pen.fillText(mark, x(at), y(row) + tall / 2 + 5);
    }
  }

  /** What is at a place of the picture, in words. */
  function told(second, row, near) {
    const events = data.incidents.filter((one) => data.workers[row] === one.worker && Math.abs(one.at - second) < near);
    if (events.length) return events.map((one) => `${one.kind} at ${plain(one.at)} s: ${one.text}`).join('\n');
    const list = rows[row];
    for (let k = firstAfter(list, second) - 1, tried = 0; k >= 0 && tried < 3; k--, tried++) {
      const i = list[k];
      if (second > Math.max(tasks.finished[i], tasks.received[i]) || !data.windows.some(([a, b]) => second >= a && second <= b)) continue;
      const read = tasks.applied[i] - tasks.staleness[i], s = (v) => `${plain(v, data.tick * 1000)} s`;
      return [
        `task ${tasks.task[i]} of client ${tasks.client[i]}, worker ${data.workers[row]}`,
        `read version ${read}, applied at ${tasks.applied[i]}: staleness ${tasks.staleness[i]}`,
        `computed for ${plain(tasks.finished[i] - tasks.started[i])} s, from ${s(tasks.started[i])} to ${s(tasks.finished[i])}`,
        `submitted at ${s(tasks.submitted[i])}, received at ${s(tasks.received[i])}`,
      ].join('\n');
    }
    if (busy && !data.windows.some(([a, b]) => second >= a && second <= b)) {
      const share = busy[row * bins + Math.min(bins - 1, Math.floor((second / data.seconds) * bins))] / 255;
      return `worker ${data.workers[row]}: busy ${(100 * share).toFixed(0)} % of the time about here`;
    }
    return `worker ${data.workers[row]} waits`;
  }

  function hover(event) {
    const box = canvas.getBoundingClientRect(), frameBox = element.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - TOP) / tall), second = place(event);
    const out = row < 0 || row >= rows.length || second < view.from || second > view.to;
    const near = (8 / inner) * (view.to - view.from);
    tip(out ? '' : told(second, row, near), event.clientX - frameBox.left, event.clientY - frameBox.top);
  }

  const button = (text, name, run) => {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = text;
    made.setAttribute('aria-label', name);
    made.addEventListener('click', run);
    tools.append(made);
  };
  button('+', 'zoom in', () => act('in'));
  button('−', 'zoom out', () => act('out'));
  button('←', 'earlier', () => act('left'));
  button('→', 'later', () => act('right'));
  button('all', 'the whole run', () => act('all'));
  let next = 0;
  if (data.incidents.length) {
    button('next incident', 'next incident', () => {
      const { at } = data.incidents[next++ % data.incidents.length];
      const half = Math.min(data.seconds, Math.max(view.least, (data.seconds / Math.max(data.n / rows.length, 1)) * 25)) / 2;
      view.set(at - half, at + half);
      act('right'); act('left');
    });
  }
  said.setAttribute('aria-live', 'polite');
  tools.append(said);

  act = control(element, view, { place, redraw: draw, drag: 'move' });
  canvas.addEventListener('pointermove', hover);
  element.addEventListener('pointerleave', () => tip(''));
  new ResizeObserver(() => { if (element.clientWidth !== width) draw(); }).observe(element);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  matchMedia('print').addEventListener('change', draw);
  element.dataset.ready = 'true';
}
