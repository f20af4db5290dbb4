// Search in pages opened from the disk. A browser refuses to start a Worker from a file, so the worker's script runs in a
// hidden frame instead. The name is the one that MkDocs Material asks for.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      frame.answer = (data) => this.dispatchEvent(new MessageEvent("message", {data}));
      this.inside = frame.contentWindow;
      this.ready = new Promise((done) => { frame.onload = done; });
      this.inside.document.open();
      this.inside.document.write(
        "<script>self.postMessage = (data) => frameElement.answer(data)</script>" + `<script src="${new URL(url, location)}"></script>`);
      this.inside.document.close();
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", {data})));
    }
  };
}
