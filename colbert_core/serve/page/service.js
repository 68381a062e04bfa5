// Asks the service. Where it wants a token, the reader is asked for it once, and it is kept as long as the tab.

const KEY = "colbert-token";

/** What the service, or the network, did not do; its message is a sentence for the reader. */
export class ServiceError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let asking = null; // one dialog, whoever waits for it

/** Ask a route of the service; returns what its JSON holds. */
export async function ask(path, { body, signal } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const answer = await fetchFrom(path, body, signal, token);
    if (answer.status !== 401) return read(answer);
    asking ??= askForToken(token !== null).finally(() => (asking = null));
    await asking;
  }
}

async function fetchFrom(path, body, signal, token) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer. Is it still running?");
  }
}

async function read(answer) {
  let content;
  try {
    content = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(`The service answered ${answer.status}, with something that is no JSON.`, answer.status);
  }
  if (answer.ok) return content;
  const message = typeof content?.message === "string" ? content.message : `The service answered ${answer.status}.`;
  throw new ServiceError(answer.status === 429 ? `The service is busy. ${message}` : message, answer.status);
}

/** Show the dialog; resolves once a token was given, and fails if the reader closes it. */
function askForToken(wasWrong) {
  const dialog = document.getElementById("token-dialog");
  const field = document.getElementById("token");
  document.getElementById("token-wrong").hidden = !wasWrong;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener(
      "close",
      () => {
        const token = field.value.trim();
        field.value = "";
        if (dialog.returnValue !== "given" || !token) {
          reject(new ServiceError("This service wants a token, and none was given.", 401));
          return;
        }
        if (!/^[\x21-\x7e]+$/.test(token)) {
          reject(new ServiceError("A token has letters, digits and signs only, and no blanks.", 401));
          return;
        }
        sessionStorage.setItem(KEY, token);
        resolve();
      },
      { once: true },
    );
  });
}
