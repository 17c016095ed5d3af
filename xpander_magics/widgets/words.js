// Differences between two texts, word by word: the shortest script of E. Myers, "An O(ND) Difference Algorithm and Its
// Variations" (1986). Returns pieces: ["=" | "-" | "+", text]. Texts with more than `most` differing words are told
// apart as a whole, so that the time stays bounded.
const differences = (before, after, most = 500) => {
  const a = before.match(/\S+/g) ?? [];
  const b = after.match(/\S+/g) ?? [];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const inner = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const pieces = [];
  let removed = [];
  let added = [];
  const flush = () => {
    if (removed.length) pieces.push(["-", removed.join(" ")]);
    if (added.length) pieces.push(["+", added.join(" ")]);
    removed = [];
    added = [];
  };
  let same = a.slice(0, start);
  const flushSame = () => {
    if (same.length) pieces.push(["=", same.join(" ")]);
    same = [];
  };
  for (const [kind, word] of shortestScript(...inner, most)) {
    if (kind === "=") {
      flush();
      same.push(word);
    } else {
      flushSame();
      (kind === "-" ? removed : added).push(word);
    }
  }
  flush();
  same = same.concat(a.slice(a.length - end));
  flushSame();
  return pieces;
};

const shortestScript = (a, b, most) => {
  const whole = () => [...a.map((word) => ["-", word]), ...b.map((word) => ["+", word])];
  if (!a.length || !b.length) return whole();
  const limit = Math.min(a.length + b.length, most);
  const at = limit + 1; // where diagonal 0 is
  const furthest = new Int32Array(2 * limit + 3);
  const trace = [];
  for (let d = 0; d <= limit; d++) {
    trace.push(furthest.slice(at - d - 1, at + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && furthest[at + k - 1] < furthest[at + k + 1]);
      let x = down ? furthest[at + k + 1] : furthest[at + k - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      furthest[at + k] = x;
      if (x >= a.length && x - k >= b.length) return traced(a, b, trace);
    }
  }
  return whole();
};

const traced = (a, b, trace) => {
  const script = [];
  let [x, y] = [a.length, b.length];
  for (let d = trace.length - 1; d > 0; d--) {
    const furthest = trace[d];
    const middle = d + 1;
    const k = x - y;
    const down = k === -d || (k !== d && furthest[middle + k - 1] < furthest[middle + k + 1]);
    const beforeX = furthest[middle + (down ? k + 1 : k - 1)];
    const beforeY = beforeX - (down ? k + 1 : k - 1);
    while (x > beforeX && y > beforeY) {
      script.push(["=", a[--x]]);
      y--;
    }
    if (down) script.push(["+", b[--y]]);
    else script.push(["-", a[--x]]);
  }
  while (x > 0) script.push(["=", a[--x]]);
  return script.reverse();
};

// Pieces as nodes: what was taken out and what was put in are marked as such, not by colour alone.
const marked = (pieces) =>
  pieces.flatMap(([kind, text], number) => {
    const tag = { "-": "del", "+": "ins" }[kind];
    return [number ? " " : "", tag ? el(tag, {}, text) : text];
  });
