// How things are said: numbers, times, phases, and the sentences at the top.

const whole = new Intl.NumberFormat("en");

export const count = (number) => whole.format(Math.round(number));

export const counted = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export const rate = (perSecond) =>
  perSecond === 0 ? "0" : perSecond < 10 ? perSecond.toFixed(1) : count(perSecond);

// Seconds as [number, unit]; null where nothing was measured.
export function span(seconds) {
  if (seconds === null) return ["–", ""];
  const ms = seconds * 1000;
  if (ms < 10) return [ms.toFixed(1), "ms"];
  if (ms < 1000) return [count(ms), "ms"];
  return [(ms / 1000).toFixed(1), "s"];
}

// Bytes as [number, unit].
export function size(bytes) {
  if (bytes < 1000) return [count(bytes), "B"];
  if (bytes < 1e6) return [(bytes / 1000).toFixed(1), "kB"];
  return [(bytes / 1e6).toFixed(1), "MB"];
}

// Seconds of a setting, in words.
export const long = (seconds) => (seconds < 120 || seconds % 60 ? `${count(seconds)} s` : `${seconds / 60} minutes`);

export const clock = (at) =>
  new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const agoOf = (seconds) => {
  if (seconds < 5) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return `${Math.round(seconds / 60)} min ago`;
};

// A backend's state as [words, tone]; the worst that is true comes first.
export function stateOf(backend, unreachable) {
  if (unreachable) return ["unreachable", "bad"];
  if (backend.ejected) return ["failing", "bad"];
  if (backend.drained) return ["drained by order", "info"];
  if (backend.phase === "draining") return ["draining", "info"];
  if (backend.phase === "paused") return ["not ready", "warn"];
  if (backend.trouble) return ["failing", "warn"];
  return ["ready", "good"];
}

export const KINDS = {
  start: ["start", "info"],
  stop: ["stop", "info"],
  phase: ["phase", "gone"],
  drain: ["drain", "info"],
  undrain: ["undrain", "info"],
  discovery: ["discovery", "warn"],
  cut: ["cut off", "bad"],
  unreachable: ["unreachable", "bad"],
  reachable: ["reachable", "good"],
  ejected: ["ejected", "bad"],
  returned: ["returned", "good"],
  moved: ["moved", "info"],
  lost: ["lost", "bad"],
  "reload-loop": ["reload loop", "warn"],
  "let-go": ["let go", "warn"],
  worker: ["worker", "warn"],
};

export function toneOf(event) {
  if (event.cause === "healthy" || (event.kind === "phase" && event.cause === "ready")) return "good";
  if (event.kind === "phase" && event.cause === "gone") return "bad";
  return (KINDS[event.kind] ?? ["", "gone"])[1];
}

export const DROPS = {
  backend_gone: "replica gone",
  backend: "closed by the app",
  error: "network failure",
  idle: "stuck",
  drain: "moved on purpose",
  shutdown: "proxy ended",
};

const RELEASES = {
  timeout: "did not come back in time",
  reloaded: "came back as a new page, or by polling",
  memory: "were sent more than the limits of memory allow",
  pages: "made room for others (--park-pages)",
  backend: "ended with their replica or by the app",
  drain: "left with their replica or this proxy",
};

// Which pages were parked since the start, and why some are not any more.
export function letGo(ever, released) {
  if (ever === 0) return "No page has been parked since the start.";
  const parts = Object.entries(released)
    .filter(([, number]) => number > 0)
    .map(([reason, number]) => `${count(number)} ${RELEASES[reason] ?? reason}`);
  const were = `A page was parked ${counted(ever, "time")} since the start`;
  return parts.length ? `${were}. Let go: ${parts.join(", ")}.` : `${were}; none was let go.`;
}

export const CAUSES = {
  refused: "refuses connections",
  gone: "not listed any more",
  timeout: "no answer",
  draining: "drains",
};

export function headline(status, serving) {
  const pages = counted(status.totals.pages, "open page");
  if (status.backends.length === 0) return "No replica is known.";
  if (serving === 0) return `No replica is ready. ${pages} ${status.totals.pages === 1 ? "is" : "are"} left.`;
  const replicas = counted(serving, "replica");
  return `${replicas} ${serving === 1 ? "serves" : "serve"} ${pages}.`;
}

// The last ten minutes as parts, each [text, tone]; tone "" is plain, "b" stands out.
export function recently(recent) {
  const { went, pages_moved: moved, pages_lost: lost, pages_away: away, pages_returned: back } = recent;
  const parts = [[`In the last ${Math.round(recent.seconds / 60)} minutes `, ""]];
  if (went.length === 0 && moved === 0 && lost === 0) {
    parts.push(["no replica went away, no page moved and none was lost", "b"], [".", ""]);
  } else {
    parts.push([went.length ? `${counted(went.length, "replica")} went away` : "no replica went away", "b"]);
    parts.push([": ", ""], [`${counted(moved, "page")} moved`, "b"], [", ", ""]);
    parts.push([`${count(lost)} lost`, lost ? "bad" : "good"], [".", ""]);
  }
  if (back) parts.push([` Parked pages: ${count(back)} came back.`, ""]);
  if (away) parts.push([` ${counted(away, "page")} ${away === 1 ? "has" : "have"} just lost the connection and may come back.`, ""]);
  return parts;
}
