// Label photos by key, press or swipe. The next photo is shown before the label is sent.
"use strict";

(() => {
  const root = document.getElementById("review");
  const desk = root.querySelector("[data-desk]");
  const form = root.querySelector("[data-answers]");
  const done = root.querySelector("[data-done]");
  const said = root.querySelector("[data-said]");
  const other = form.elements.other;
  const undoButton = root.querySelector("[data-undo]");
  const given = document.querySelector("[data-given]");
  const remaining = document.querySelector("[data-remaining]");
  const csrf = form.elements.csrf.value;
  const shortcuts = root.querySelector("[data-shortcuts]"); // off for who speaks, or types by accident
  const grid = root.dataset.view === "grid";
  const renewMs = 30000;
  const history = []; // of {nodes, ids}: what was labelled, with the ids of the labels once they are known
  const most = 20;
  const again = new Set(); // photos whose label was sent before it could be taken back: labelled, and shown all the same
  const away = new Set(); // photos that were labelled or put off: an answer on its way may still name them
  let fetching = false;
  let wanted = false; // once more after the present fetch
  let moves = 0; // times that photos were taken away or put back: an answer that is older knows nothing of that
  const leaseMs = 1000 * Number(root.dataset.leaseS);
  let renewedAt = Date.now();
  let unsure = false; // the leases have ended: until they are renewed, others may see these photos

  const nodes = () => [...desk.querySelectorAll("[data-photo]")];
  const current = () => desk.querySelector("[data-photo]");
  const idOf = (node) => node.dataset.photo;

  async function post(path, fields) {
    const body = new URLSearchParams(fields);
    // Kept alive: a label that was given arrives, also if the page is left before it was sent.
    const answer = await fetch(path, { method: "POST", headers: { "X-CSRF-Token": csrf }, body, keepalive: true });
    if (answer.status === 401 || answer.redirected) location.assign("/login");
    return answer;
  }

  function say(text) {
    said.textContent = text;
  }

  function show() {
    const first = current();
    nodes().forEach((node) => (node.hidden = !grid && node !== first));
    desk.hidden = unsure;
    done.hidden = Boolean(first);
    form.hidden = !first || unsure;
    undoButton.disabled = history.length === 0;
  }

  async function fetchMore() {
    if (fetching) {
      wanted = true;
      return;
    }
    fetching = true;
    wanted = false;
    const movesBefore = moves;
    const [asked, have] = [Date.now(), nodes()];
    try {
      const answer = await post("/review/more", [...have.map((node) => ["have", idOf(node)]), ["view", root.dataset.view]]);
      if (!answer.ok) return;
      renewedAt = asked;
      const lost = answer.headers.get("X-Lost").split(" ");
      const gone = have.filter((node) => lost.includes(idOf(node)) && !again.has(idOf(node)));
      if (moves === movesBefore) gone.forEach((node) => node.remove());
      remaining.textContent = answer.headers.get("X-Remaining");
      const part = document.createElement("template");
      part.innerHTML = await answer.text();
      const known = new Set(nodes().map(idOf));
      for (const node of part.content.querySelectorAll("[data-photo]")) {
        if (!known.has(idOf(node)) && !away.has(idOf(node))) desk.append(node);
      }
    } catch {
      // Offline: the page goes on with the photos that it has.
    } finally {
      fetching = false;
      unsure = false;
      show();
      if (wanted) fetchMore();
    }
  }

  // A page that was hidden, or on a laptop that slept, may have lost its photos to others.
  function renew() {
    if (document.hidden) return;
    unsure = isLate();
    show();
    fetchMore();
  }

  const isLate = () => Date.now() - renewedAt > leaseMs;

  function chosen() {
    if (!grid) return current() ? [current()] : [];
    return nodes().filter((node) => node.querySelector("input").checked);
  }

  function takeAway(taken) {
    moves += 1;
    taken.forEach((node) => {
      away.add(idOf(node));
      node.remove();
    });
    show();
  }

  function putBack(taken) {
    moves += 1;
    taken.toReversed().forEach((node) => {
      if (grid) node.querySelector("input").checked = false;
      away.delete(idOf(node));
      desk.prepend(node);
    });
    show();
  }

  async function label(name) {
    if (isLate()) return renew();
    const taken = chosen();
    if (!taken.length) return say(root.dataset.textNone);
    const entry = { nodes: taken, ids: null, name };
    history.push(entry);
    if (history.length > most) history.shift();
    takeAway(taken);
    given.textContent = Number(given.textContent) + taken.length;
    say(`${name} ✓`);
    entry.sending = send(entry);
    await entry.sending;
    await fetchMore();
  }

  async function send(entry) {
    try {
      const answer = await post("/review/label", [...entry.nodes.map((node) => ["photo", idOf(node)]), ["label", entry.name]]);
      const found = await answer.json();
      if (!answer.ok) throw Object.assign(new Error(found.error), { own: true });
      entry.ids = found.labels;
      found.classes.forEach(addClass);
    } catch (error) {
      history.splice(history.indexOf(entry), 1);
      given.textContent = Number(given.textContent) - entry.nodes.length;
      putBack(entry.nodes);
      say(`${root.dataset.textLost} ${error.own ? error.message : ""}`); // a browser says its own in English
    }
  }

  async function undo() {
    const entry = history.pop();
    if (!entry) return;
    await entry.sending;
    if (!entry.ids) return; // it failed, and the photo is back already
    try {
      const answer = await post("/review/undo", entry.ids.map((id) => ["label_id", id]));
      const { photos } = await answer.json();
      entry.nodes.map(idOf).forEach((id) => !photos.includes(id) && again.add(id));
      putBack(entry.nodes);
      given.textContent = Number(given.textContent) - entry.nodes.length;
      say(photos.length === entry.nodes.length ? root.dataset.textUndone : root.dataset.textSent);
    } catch {
      history.push(entry);
      show();
      return;
    }
    await fetchMore();
  }

  async function skip() {
    const taken = chosen();
    if (!taken.length) return say(root.dataset.textNone);
    takeAway(taken);
    say(root.dataset.textLater);
    try {
      await post("/review/skip", taken.map((node) => ["photo", idOf(node)]));
      taken.forEach((node) => away.delete(idOf(node))); // from now on it comes after all others
    } catch {
      // Its lease ends by itself.
    }
    await fetchMore();
  }

  function addClass(name) {
    const classes = form.querySelector("[data-classes]");
    if ([...classes.children].some((button) => button.value === name)) return;
    const button = document.createElement("button");
    button.className = "class";
    button.name = "label";
    button.value = name;
    const text = document.createElement("bdi");
    text.textContent = name;
    button.append(text);
    classes.append(button);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button && button.dataset.skip !== undefined) return skip();
    if (button && button.name === "label") return label(button.value);
    labelTyped();
  });

  function labelTyped() {
    const typed = other.value.trim();
    if (!typed) return;
    other.value = "";
    other.blur();
    label(typed);
  }

  undoButton.addEventListener("click", undo);

  shortcuts.checked = localStorage.getItem("gleaner-shortcuts") !== "off";
  function markShortcuts() {
    localStorage.setItem("gleaner-shortcuts", shortcuts.checked ? "on" : "off");
    root.classList.toggle("no-keys", !shortcuts.checked);
  }
  shortcuts.addEventListener("change", markShortcuts);
  markShortcuts();

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target === other) {
      if (event.key === "Escape") other.blur();
      if (event.key === "Enter") {
        // Otherwise the first button of the form would be pressed.
        event.preventDefault();
        labelTyped();
      }
      return;
    }
    if (!shortcuts.checked || event.target.closest("input:not([type=checkbox]), select, textarea, summary")) return;
    const key = event.key.toLowerCase();
    if (key === "u") return undo();
    if (form.hidden) return;
    if (key === "o") {
      event.preventDefault();
      return other.focus();
    }
    if (grid && key === "a") {
      const all = nodes().every((node) => node.querySelector("input").checked);
      return nodes().forEach((node) => (node.querySelector("input").checked = !all));
    }
    const button = [...form.querySelectorAll("button[data-keys]")].find((one) => one.dataset.keys.split(" ").includes(key));
    if (!button) return;
    if (button.dataset.skip !== undefined) return skip();
    if (button.name === "label") label(button.value);
  });

  // Swipe: right for the model's label, left for later. Pointer events, so that a mouse can drag as well.
  const farPx = 90;
  let start = null;

  function move(event) {
    const node = current();
    if (!start || !node) return;
    const dx = event.clientX - start.x;
    if (!start.dragging && Math.abs(dx) < 10) return;
    start.dragging = true;
    node.dataset.pull = dx > farPx ? "right" : dx < -farPx ? "left" : "";
    node.querySelector(".frame").style.transform = `translateX(${dx}px) rotate(${dx / 40}deg)`;
  }

  function end(event) {
    const node = current();
    if (!start || !node) return;
    const dx = event.clientX - start.x;
    const cancelled = event.type === "pointercancel";
    start = null;
    node.dataset.pull = "";
    node.querySelector(".frame").style.transform = "";
    if (cancelled) return;
    if (dx > farPx && node.dataset.model) label(node.dataset.model);
    else if (dx < -farPx) skip();
  }

  if (!grid) {
    desk.addEventListener("pointerdown", (event) => {
      if (!event.target.closest(".frame") || !event.isPrimary) return;
      start = { x: event.clientX, dragging: false };
      desk.setPointerCapture(event.pointerId);
    });
    desk.addEventListener("pointermove", move);
    desk.addEventListener("pointerup", end);
    // Otherwise a quick swipe is a fling too, and the browser takes the next tap for the end of it.
    const noFling = (event) => start && start.dragging && event.preventDefault();
    desk.addEventListener("touchmove", noFling, { passive: false });
    desk.addEventListener("pointercancel", end);
  }

  // Who leaves the page gives its photos back at once; who returns asks for them again.
  window.addEventListener("pagehide", () => {
    const body = new URLSearchParams([["csrf", csrf], ...nodes().map((node) => ["photo", idOf(node)])]);
    navigator.sendBeacon("/review/release", body);
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) renew();
  });

  document.body.addEventListener("live-dataset", renew);
  document.addEventListener("visibilitychange", renew);
  setInterval(renew, renewMs);
  show();
})();
