// Brings the data of the page and the places for pictures together.

const data = JSON.parse(document.getElementById('data').textContent);
const plots = (kind) => [...document.querySelectorAll(`[data-plot="${kind}"]`)];

/** Say in a picture's place why it cannot be drawn. */
function failed(element, error) {
  element.textContent = `This picture could not be drawn: ${error.message}. The tables below hold its numbers.`;
  element.dataset.failed = error.message;
}

/** A labelled control before some pictures; `changed` is called with its value. */
function choice(holder, name, control, changed, value) {
  const label = document.createElement('label');
  if (control.type === 'checkbox') label.append(control, ` ${name}`); else label.append(`${name} `, control);
  control.addEventListener('change', () => changed(value()));
  holder.append(label);
}

function checkbox(holder, name, on, changed) {
  const box = document.createElement('input');
  box.type = 'checkbox';
  box.checked = on;
  choice(holder, name, box, changed, () => box.checked);
  return box;
}

function convergence() {
  const { measures, lines } = data.convergence;
  let measure = measures[0], log = measure.log;
  const spec = (key) => ({
    x: { label: key === 'version' ? 'updates' : 'seconds' },
    y: { label: measure.name.replaceAll('_', ' '), log },
    lines: lines.filter((line) => line.values[measure.name]).map((line) => {
      const { mid, low, high } = line.values[measure.name];
      return { name: line.name, series: line.series, x: line[key], y: mid, low, high };
    }),
  });
  const shown = plots('convergence').map((element) => ({ key: element.dataset.key, show: chart(element, spec(element.dataset.key)) }));
  const redraw = () => shown.forEach(({ key, show }) => show(spec(key)));
  const holder = document.querySelector('[data-controls="convergence"]');
  const select = document.createElement('select');
  select.append(...measures.map(({ name }) => new Option(name.replaceAll('_', ' '), name)));
  choice(holder, 'measure', select, (name) => {
    measure = measures.find((one) => one.name === name);
    box.checked = log = measure.log;
    redraw();
  }, () => select.value);
  const box = checkbox(holder, 'log scale', log, (on) => { log = on; redraw(); });
}

function staleness() {
  const { labels, shares, growth } = data.staleness, names = data.runs;
  for (const element of plots('histogram')) {
    const bars = shares.map(({ run, share }) => ({ name: names[run], series: run, y: share }));
    chart(element, { x: { label: 'staleness', labels }, y: { label: 'share of replies, %', unit: '%' }, zero: true, bars });
  }
  for (const element of plots('growth')) {
    const lines = growth.map(({ run, version, largest }) => ({ name: names[run], series: run, x: version, y: largest }));
    for (const { run, at, envelope } of growth) if (at) lines.push({ name: names[run], series: run, x: at, y: envelope, thin: true });
    const spec = (log) => ({ x: { label: 'version read', log }, y: { label: 'largest staleness', log }, zero: true, lines });
    const show = chart(element, spec(false));
    const holder = document.createElement('div');
    holder.className = 'controls';
    element.after(holder);
    checkbox(holder, 'log scales', false, (on) => show(spec(on)));
  }
}

for (const mark of document.querySelectorAll('.swatch')) mark.append(sample(Number(mark.dataset.series)));
if (data.convergence) convergence();
if (data.staleness) staleness();
for (const element of plots('timeline')) timeline(element, data.timeline[element.dataset.key]).catch((error) => failed(element, error));
