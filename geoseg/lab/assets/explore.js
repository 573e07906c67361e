// The widget of geoseg.explore: layers on a canvas, a click that answers, polygons that are drawn. No server, no tiles.
const KEYS = '123456789';
function element(tag, parent, attributes = {}, text = '') {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  parent.appendChild(node);
  return node;
}
function render({ model, el }) {
  el.classList.add('geoseg-explore');
  el.tabIndex = 0;
  el.style.outline = 'none';
  const bar = element('div', el, { style: 'display:flex;gap:6px;flex-wrap:wrap;align-items:center;margin-bottom:4px' });
  const body = element('div', el, { style: 'display:flex;gap:8px;align-items:flex-start' });
  const canvas = element('canvas', body, { width: 560, height: 480, class: 'geoseg-canvas',
    style: 'background:#222;cursor:crosshair;flex:none' });
  const strip = element('div', el, { class: 'geoseg-crops', style: 'display:flex;gap:6px;flex-wrap:wrap;margin-top:4px;font:11px sans-serif' });
  const side = element('div', body, { style: 'font:12px sans-serif;min-width:200px;max-height:480px;overflow:auto' });
  const context = canvas.getContext('2d');
  const button = (text, title, action) => {
    const node = element('button', bar, { title, class: 'geoseg-' + text.replace(/\W/g, '') || 'b' }, text);
    node.onclick = action;
    return node;
  };
  const send = (ask, more = {}) => model.send({ ask, ...more });
  button('<', 'sample before (left arrow)', () => send('step', { by: -1 }));
  button('>', 'next sample (right arrow)', () => send('step', { by: 1 }));
  button('whole', 'the whole raster as its own map; again: the chip of the last click (w)', () => wholeOrChip());
  const order = element('select', bar, { title: 'order of the samples', class: 'geoseg-order' });
  for (const [name, words] of [['sample', 'in order'], ['spread', 'spread over the ground'], ['loss', 'worst: loss'],
    ['disagreement', 'worst: disagreement'], ['uncertainty', 'worst: uncertainty'],
    ['uncertain and spread', 'worst: uncertain and spread'], ['suspicious', 'suspicious labels']])
    element('option', order, { value: name }, words);
  order.onchange = () => send('order', { by: order.value });
  const date = element('input', bar, { type: 'range', min: 0, max: 0, value: 0, title: 'acquisition', class: 'geoseg-date' });
  const dateText = element('span', bar);
  date.oninput = () => send('date', { at: Number(date.value) });
  const title = element('b', bar, { class: 'geoseg-title' });
  const drawing = button('draw', 'draw a polygon (d): click its corners, Enter closes', () => toggle());
  button('accept', 'take the predicted piece under the last click as a label (a)', () => accept());
  button('delete', 'delete the chosen polygon (Delete)', () => removeChosen());
  button('undo', 'take back the last change (u)', () => send('undo'));
  button('new class', 'a class that the list does not have', () => {
    const name = window.prompt('name of the class');
    if (name) send('class', { name });
  });
  let state = null, pictures = {}, zoom = 1, left = 0, top = 0, points = [], draws = false, current = 0, last = null;
  let mesh = null, yaw = 0.6, tilt = -0.9, seen = 'texture';
  let chosen = null, hold = null, opacity = {}, visible = {}, threshold = 0, waiting = false, again = false;
  const toScreen = ([x, y]) => [x * zoom + left, y * zoom + top];
  const toPixel = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left - left) / zoom, (event.clientY - box.top - top) / zoom];
  };
  function toggle(on = !draws) {
    draws = on; points = [];
    drawing.style.background = draws ? '#fc6' : '';
    draw();
  }
  function colored(values, name) {  // ids or grey as a picture; classes that are hidden, and what is below the threshold, left out
    const out = document.createElement('canvas');
    [out.height, out.width] = state.picture;
    const pixels = new ImageData(out.width, out.height), unsure = pictures.uncertainty;
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      let color = null;
      if (state.grey.includes(name)) color = [255, 160, 0, value];
      else if (value < state.classes.length && visible[value] !== false) color = [...state.classes[value][1], 255];
      if (!color || (unsure && unsure[i] < threshold * 255)) continue;
      pixels.data.set(color, 4 * i);
    }
    out.getContext('2d').putImageData(pixels, 0, 0);
    return out;
  }
  function faceColors() {  // of the layer that is seen; grey where a class is hidden or the network surer than the threshold
    const values = pictures[seen], unsure = pictures.uncertainty, out = new Uint8ClampedArray(3 * state.width).fill(205);
    for (let i = 0; i < state.width; i++) {
      if (unsure && unsure[i] < threshold * 255) continue;
      if (seen === 'texture') out.set(pictures.texture.subarray(3 * i, 3 * i + 3), 3 * i);
      else if (state.grey.includes(seen)) out.set([205 + values[i] / 5.1, 205 - values[i] / 5, 205 - values[i] / 1.25], 3 * i);
      else if (values[i] < state.classes.length && visible[values[i]] !== false) out.set(state.classes[values[i]][1], 3 * i);
    }
    return out;
  }
  function drawMesh() {  // the painter's way: the farthest face first; no graphics card is asked for
    const a = Math.cos(yaw), b = Math.sin(yaw), c = Math.cos(tilt), d = Math.sin(tilt), n = state.width, p = mesh.points;
    const size = zoom * Math.min(canvas.width, canvas.height) / 2, flat = new Float32Array(9 * n), depth = new Float32Array(n);
    for (let i = 0; i < 3 * n; i++) {
      const x = p[3 * i], y = p[3 * i + 1], z = p[3 * i + 2];
      flat[3 * i] = canvas.width / 2 + size * (a * x - b * y);
      flat[3 * i + 1] = canvas.height / 2 - size * (b * c * x + a * c * y - d * z);
      flat[3 * i + 2] = b * d * x + a * d * y + c * z;
      depth[Math.floor(i / 3)] += flat[3 * i + 2];
    }
    mesh.flat = flat;
    mesh.order = Uint32Array.from(depth.keys()).sort((i, j) => depth[i] - depth[j]);
    for (const i of mesh.order) {
      const [ax, ay, az, bx, by, bz, cx, cy, cz] = flat.subarray(9 * i, 9 * i + 9);
      const ux = (bx - ax) / size, uy = (ay - by) / size, uz = bz - az, vx = (cx - ax) / size, vy = (ay - cy) / size, vz = cz - az;
      const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx, long = Math.hypot(nx, ny, nz) || 1;
      const light = 0.45 + 0.55 * Math.abs(0.36 * nx + 0.45 * ny + 0.81 * nz) / long;
      const [r, g, e] = [0, 1, 2].map((k) => Math.round(mesh.colors[3 * i + k] * light));
      context.fillStyle = context.strokeStyle = last && last[1] === i ? '#f0f' : `rgb(${r},${g},${e})`;
      context.lineWidth = 0.5;
      context.beginPath();
      context.moveTo(ax, ay); context.lineTo(bx, by); context.lineTo(cx, cy); context.closePath();
      context.fill(); context.stroke();
    }
  }
  function faceAt(x, y) {  // the nearest one under a point of the canvas
    for (let k = mesh.order.length - 1; k >= 0; k--) {
      const f = mesh.flat.subarray(9 * mesh.order[k], 9 * mesh.order[k] + 9), s = [0, 1, 2].map((i) => {
        const j = (i + 1) % 3;
        return (f[3 * j] - f[3 * i]) * (y - f[3 * i + 1]) - (f[3 * j + 1] - f[3 * i + 1]) * (x - f[3 * i]);
      });
      if (s.every((v) => v >= 0) || s.every((v) => v <= 0)) return mesh.order[k];
    }
    return null;
  }
  function draw() {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!state) return;
    if (mesh) return drawMesh();
    context.imageSmoothingEnabled = zoom < 1;
    context.setTransform(zoom, 0, 0, zoom, left, top);
    for (const name of state.layers) {
      context.globalAlpha = opacity[name] ?? (name === 'image' ? 1 : 0);
      if (context.globalAlpha && pictures.shown?.[name]) context.drawImage(pictures.shown[name], ...state.window);
    }
    context.globalAlpha = 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    const outline = (corners, color, closed) => {
      context.strokeStyle = color; context.lineWidth = 2;
      context.beginPath();
      corners.map(toScreen).forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (closed) context.closePath();
      context.stroke();
      context.fillStyle = color;
      if (!closed || chosen !== null) corners.map(toScreen).forEach(([x, y]) => context.fillRect(x - 3, y - 3, 6, 6));
    };
    for (const shape of state.shapes)
      for (const ring of [shape.points, ...(shape.holes ?? [])])
        outline(ring, shape.number === chosen ? '#fff' : `rgb(${shape.color})`, true);
    for (const [row, col, height, width] of state.marks ?? [])
      outline([[col, row], [col + width, row], [col + width, row + height], [col, row + height]], '#f0f', true);
    if (points.length) outline(points, '#ff0', false);
    if (last) { const [x, y] = toScreen([last[1] + 0.5, last[0] + 0.5]); context.strokeStyle = '#fff'; context.strokeRect(x - 4, y - 4, 8, 8); }
  }
  function askWindow() {  // one at a time; the last that was wanted follows
    if (!state?.whole) return;
    again = waiting;
    if (waiting) return;
    waiting = true;
    send('window', { row: -top / zoom, col: -left / zoom, height: canvas.height / zoom, width: canvas.width / zoom });
  }
  function wholeOrChip() {
    if (!state?.whole) send('whole');
    else if (last) send('chip', { row: last[0], col: last[1] });
  }
  function recolor() {
    if (!state) return;
    if (mesh) { mesh.colors = faceColors(); return draw(); }
    pictures.shown = { image: pictures.picture };
    for (const name of [...state.ids, ...state.grey]) if ((opacity[name] ?? 0) > 0) pictures.shown[name] = colored(pictures[name], name);
    draw();
  }
  function panel() {
    side.replaceChildren();
    for (const name of state.layers) {
      const row = element('div', side);
      if (mesh) {
        const pick = element('input', row, { type: 'radio', class: 'geoseg-layer', 'data-layer': name });
        pick.checked = name === seen;
        pick.onclick = () => { seen = name; panel(); recolor(); };
        element('span', row, {}, ' ' + name);
        continue;
      }
      const slider = element('input', row, { type: 'range', min: 0, max: 1, step: 0.05, value: opacity[name] ?? (name === 'image' ? 1 : 0),
        class: 'geoseg-layer', 'data-layer': name, style: 'width:80px' });
      slider.oninput = () => { opacity[name] = Number(slider.value); recolor(); };
      element('span', row, {}, ' ' + name);
    }
    const unsure = state.grey.includes('uncertainty') ? '' : 'display:none';
    const row = element('div', side, { style: unsure, title: 'show layers only where the network is less sure than this' });
    const slider = element('input', row, { type: 'range', min: 0, max: 1, step: 0.02, value: threshold, class: 'geoseg-threshold', style: 'width:80px' });
    slider.oninput = () => { threshold = Number(slider.value); recolor(); };
    element('span', row, {}, ' uncertainty at least');
    state.classes.forEach(([name, color], i) => {
      const line = element('div', side, { class: 'geoseg-class', 'data-class': name, style: 'cursor:pointer;' + (i === current ? 'font-weight:bold' : '') });
      const box = element('input', line, { type: 'checkbox', title: 'show this class' });
      box.checked = visible[i] !== false;
      box.onclick = (event) => { event.stopPropagation(); visible[i] = box.checked; recolor(); };
      element('span', line, { style: `display:inline-block;width:12px;height:12px;background:rgb(${color});margin:0 4px` });
      element('span', line, {}, `${KEYS[i] ?? ' '} ${name}`);
      line.onclick = () => choose(i);
    });
    element('pre', side, { class: 'geoseg-answer', style: 'white-space:pre-wrap;font:11px monospace' }, model.get('answer'));
  }
  function choose(i) {
    if (i >= state.classes.length) return;
    current = i;
    if (chosen !== null) send('rename', { number: chosen, name: state.classes[i][0] });
    panel();
  }
  function close() {
    if (points.length > 2) send('draw', { points, name: state.classes[current][0] });
    points = [];
    draw();
  }
  function accept() { if (last) send('accept', { row: last[0], col: last[1] }); }
  function removeChosen() { if (chosen !== null) send('remove', { number: chosen }); chosen = null; }
  canvas.onmousedown = (event) => {
    el.focus({ preventScroll: true });
    const [x, y] = toPixel(event);
    hold = { x: event.clientX, y: event.clientY, left, top, yaw, tilt, moved: false, vertex: null };
    if (draws || !state || mesh) return;
    for (const shape of state.shapes)
      shape.points.forEach((point, i) => {
        if (Math.hypot(point[0] - x, point[1] - y) * zoom < 7 && (chosen === null || chosen === shape.number)) hold.vertex = [shape, i];
      });
    if (hold.vertex) chosen = hold.vertex[0].number;
  };
  canvas.onmousemove = (event) => {
    if (!hold) return;
    if (Math.hypot(event.clientX - hold.x, event.clientY - hold.y) > 3) hold.moved = true;
    if (!hold.moved) return;
    if (mesh) {
      yaw = hold.yaw + (event.clientX - hold.x) / 200;
      tilt = Math.max(-1.57, Math.min(0, hold.tilt + (event.clientY - hold.y) / 200));
    } else if (hold.vertex) hold.vertex[0].points[hold.vertex[1]] = toPixel(event);
    else { left = hold.left + event.clientX - hold.x; top = hold.top + event.clientY - hold.y; askWindow(); }
    draw();
  };
  canvas.onmouseup = (event) => {
    const was = hold;
    hold = null;
    if (!was || !state) return;
    if (was.vertex && was.moved) return send('move', { number: was.vertex[0].number, points: was.vertex[0].points });
    if (was.moved) return;
    if (mesh) {
      const box = canvas.getBoundingClientRect(), face = faceAt(event.clientX - box.left, event.clientY - box.top);
      last = face === null ? null : [0, face];
      if (last) send('click', { row: 0, col: face });
      return draw();
    }
    const [x, y] = toPixel(event);
    if (draws) { points.push([x, y]); return draw(); }
    if (x < 0 || y < 0 || x >= state.width || y >= state.height) return;
    last = [Math.floor(y), Math.floor(x)];
    chosen = null;
    for (const shape of state.shapes) {
      const path = new Path2D();
      shape.points.forEach(([px, py], i) => (i ? path.lineTo(px, py) : path.moveTo(px, py)));
      path.closePath();
      context.setTransform(1, 0, 0, 1, 0, 0);
      if (context.isPointInPath(path, x, y)) chosen = shape.number;
    }
    send('click', { row: last[0], col: last[1] });
    draw();
  };
  canvas.ondblclick = () => { if (draws) close(); };
  canvas.onwheel = (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const factor = event.deltaY < 0 ? 1.25 : 0.8;
    if (!mesh) left = x - (x - left) * factor; top = y - (y - top) * factor; zoom *= factor;
    draw();
    askWindow();
  };
  el.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || ['INPUT', 'SELECT'].includes(event.target.tagName)) return;
    const actions = { d: () => toggle(), u: () => send('undo'), a: accept, w: wholeOrChip, Enter: close, Escape: () => toggle(false), Delete: removeChosen,
      ArrowLeft: () => send('step', { by: -1 }), ArrowRight: () => send('step', { by: 1 }) };
    if (KEYS.includes(event.key)) choose(KEYS.indexOf(event.key));
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  function showCrops(crops, buffers) {
    strip.replaceChildren();
    crops.forEach(([words, height, width], i) => {
      const box = element('div', strip), bytes = new Uint8Array(buffers[i].buffer ?? buffers[i], buffers[i].byteOffset ?? 0, 3 * height * width);
      const out = element('canvas', box, { width, height, title: words, style: 'display:block;height:96px;image-rendering:pixelated' });
      const rgba = new ImageData(width, height);
      for (let k = 0; k < width * height; k++) rgba.data.set([bytes[3 * k], bytes[3 * k + 1], bytes[3 * k + 2], 255], 4 * k);
      out.getContext('2d').putImageData(rgba, 0, 0);
      element('span', box, {}, words);
    });
  }
  function show(message, buffers) {
    if (message.kind === 'crops') return showCrops(message.crops, buffers);
    if (message.kind === 'shapes') { state.shapes = message.shapes; state.classes = message.classes; panel(); return draw(); }
    const part = message.kind === 'window';  // of the raster that is shown
    if (part && !state?.whole) return;
    const fresh = !part && (!state || state.whole !== message.whole || state.width !== message.width || state.height !== message.height);
    state = part ? { ...state, ...message } : { window: [0, 0, message.width, message.height], picture: [message.height, message.width], ...message };
    const ids = pictures.names ?? '';
    pictures = { names: state.ids.join() };
    const bytes = buffers.map((b) => new Uint8ClampedArray(b.buffer ?? b, b.byteOffset ?? 0, b.byteLength));
    const out = document.createElement('canvas');
    [out.height, out.width] = state.picture;
    const rgba = new ImageData(out.width, out.height);
    for (let i = 0, n = out.width * out.height; i < n; i++) {
      rgba.data[4 * i] = bytes[0][3 * i]; rgba.data[4 * i + 1] = bytes[0][3 * i + 1]; rgba.data[4 * i + 2] = bytes[0][3 * i + 2]; rgba.data[4 * i + 3] = 255;
    }
    out.getContext('2d').putImageData(rgba, 0, 0);
    pictures.picture = out;
    [...state.ids, ...state.grey].forEach((name, i) => { pictures[name] = bytes[i + 1]; });
    if (state.ids.includes('prediction')) opacity.prediction ??= 0.4;
    else opacity.mask ??= 0.4;
    for (const [name, value] of Object.entries(message.opacity ?? {})) opacity[name] ??= value;
    mesh = message.mesh ? { points: new Float32Array(bytes.at(-1).slice().buffer) } : part ? mesh : null;
    if (mesh) {
      state.layers = ['texture', ...state.layers.slice(1)];
      pictures.texture = bytes[0];
      if (fresh) { zoom = 1; if (state.ids.includes('prediction')) seen = 'prediction'; }
      if (!state.layers.includes(seen)) seen = 'texture';
    } else if (fresh) { zoom = Math.min(canvas.width / state.width, canvas.height / state.height); left = top = 0; }
    if (part || state.whole) {
      waiting = false;
      el.dataset.window = state.window.join(' ');
      if (again) askWindow();
    }
    if (part) { recolor(); if (ids !== state.ids.join()) panel(); return; }
    points = []; last = null; chosen = null; strip.replaceChildren();
    date.max = Math.max(state.dates.length - 1, 0); date.value = state.date; dateText.textContent = state.dates[state.date] ?? '';
    date.style.display = state.dates.length > 1 ? '' : 'none';
    if (message.orders) {
      order.value = message.by;
      for (const option of order.options) option.disabled = !message.orders.includes(option.value);
    }
    title.textContent = `${state.position + 1} / ${state.count}  ${state.name}`;
    panel(); recolor();
    el.dataset.ready = state.name;
  }
  model.on('msg:custom', show);
  model.on('change:answer', () => { waiting = false; const node = side.querySelector('.geoseg-answer'); if (node) node.textContent = model.get('answer'); });
  send('ready');
}
export default { render };
