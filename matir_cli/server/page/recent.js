// The texts searched for last, kept by this browser alone.

const KEY = "matir-recent";
const MOST = 12;

export function recentTexts() {
  try {
    const texts = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(texts) ? texts.filter((text) => typeof text === "string").slice(0, MOST) : [];
  } catch {
    return []; // storage may be forbidden
  }
}

export function rememberText(text) {
  const texts = [text, ...recentTexts().filter((each) => each !== text)];
  try {
    localStorage.setItem(KEY, JSON.stringify(texts.slice(0, MOST)));
  } catch { /* it is full, or forbidden */ }
}

export function forgetTexts() {
  try {
    localStorage.removeItem(KEY);
  } catch { /* forbidden */ }
}
