// Shows a log while it is written. Everything else on the page works without a script.
"use strict";
(() => {
  const log = document.getElementById("log-text");
  if (!log || !log.dataset.tail) return;
  const live = document.getElementById("live");
  const badge = document.querySelector("#status .status");
  const SOONEST = 1000, LATEST = 10000, LONGEST = 1000000;
  let next = Number(log.dataset.next), wait = SOONEST;

  const atEnd = () => log.scrollTop + log.clientHeight >= log.scrollHeight - 30;

  function show(piece) {
    const follow = atEnd();
    if (piece.restarted) log.textContent = piece.text;
    else if (piece.text) log.append(piece.text);
    // A page that stays open for days must not grow without end.
    if (log.childNodes.length > 200 || log.textContent.length > 2 * LONGEST) {
      log.textContent = log.textContent.slice(-LONGEST);
    }
    if (follow) log.scrollTop = log.scrollHeight;
    if (badge && badge.textContent !== piece.status) {
      badge.textContent = piece.status;
      badge.className = "status " + piece.status.toLowerCase();
    }
  }

  async function look() {
    try {
      const answer = await fetch(log.dataset.tail + "?from=" + next, {cache: "no-store"});
      if (!answer.ok) throw new Error(String(answer.status));
      const piece = await answer.json();
      const grown = piece.next !== next;
      show(piece);
      next = piece.next;
      if (piece.ended && !grown) {
        live.textContent = "The run has ended. ";
        const again = document.createElement("a");
        again.href = location.pathname + location.search;
        again.textContent = "Reload for its results";
        live.append(again);
        return;
      }
      wait = grown ? SOONEST : Math.min(wait * 1.5, LATEST);
      live.textContent = "Live";
    } catch {
      wait = LATEST;
      live.textContent = "The emulator does not answer; trying again.";
    }
    setTimeout(look, wait);
  }

  log.scrollTop = log.scrollHeight;
  setTimeout(look, SOONEST);
})();
