/* An enhancement only: a form that was sent shows that it runs, and is not sent twice. Everything works without it. */
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.getAttribute("aria-busy")) {
    event.preventDefault();
    return;
  }
  form.setAttribute("aria-busy", "true");
});
/* Back in history: the page may come out of the browser's memory as it was left. */
window.addEventListener("pageshow", () => {
  document.querySelectorAll("form[aria-busy]").forEach((form) => form.removeAttribute("aria-busy"));
});
/* A page that waits for sipgate looks, now and then, whether there is news: the site's own record, sipgate is not asked. */
const watched = document.querySelector("[data-watch]");
if (watched) {
  let left = 60;
  const timer = setInterval(async () => {
    if (document.hidden) return;
    if (left-- === 0) return clearInterval(timer);
    const answer = await fetch(watched.dataset.watch).catch(() => null);
    if (answer?.ok && (await answer.json()).stored !== watched.dataset.stored) {
      clearInterval(timer);
      // Not while somebody is writing.
      if (!document.activeElement?.matches("input, textarea, select")) location.reload();
    }
  }, 2000);
}
