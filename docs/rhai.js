// Colours for Rhai, which mdBook's highlighter doesn't know.
"use strict";

(function () {
    if (typeof hljs === "undefined") {
        return;
    }
    hljs.registerLanguage("rhai", function (hljs) {
        const interpolation = { className: "subst", begin: /\$\{/, end: /\}/ };
        const template = {
            className: "string",
            begin: "`",
            end: "`",
            contains: [interpolation],
        };
        const number = {
            className: "number",
            begin: /\b(0x[\da-fA-F_]+|0b[01_]+|0o[0-7_]+|\d[\d_]*(\.\d[\d_]*)?([eE][+-]?\d+)?)/,
        };
        interpolation.contains = [hljs.QUOTE_STRING_MODE, number];
        return {
            name: "Rhai",
            keywords: {
                keyword:
                    "as break catch const continue do else export fn for global if import in is let loop " +
                    "private return switch this throw try until while with",
                literal: "true false",
                built_in:
                    "Array BaseManager Barrier BoundedSemaphore Condition Event JoinableQueue Lock Manager Pipe " +
                    "Pool Process Queue RLock RawArray RawValue Semaphore SimpleQueue Value spawn",
            },
            contains: [
                hljs.C_LINE_COMMENT_MODE,
                hljs.C_BLOCK_COMMENT_MODE,
                hljs.QUOTE_STRING_MODE,
                template,
                number,
                {
                    className: "function",
                    beginKeywords: "fn",
                    end: /[({]/,
                    excludeEnd: true,
                    contains: [hljs.UNDERSCORE_TITLE_MODE],
                },
            ],
        };
    });
    const highlight = hljs.highlightElement || hljs.highlightBlock;
    document.querySelectorAll("code.language-rhai").forEach(function (block) {
        delete block.dataset.highlighted;
        highlight.call(hljs, block);
    });
})();
