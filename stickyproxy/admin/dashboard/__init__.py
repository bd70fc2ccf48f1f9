"""The dashboard's files: a page that loads nothing from anywhere else and talks to the JSON API alone.

Law: what a browser may do with the page is said by a policy that allows no inline script and no other host.
"""

from importlib.resources import files

from aiohttp import web

POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

KINDS = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "charts.js": "text/javascript",
    "words.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
    "uPlot.LICENSE": "text/plain",
}
"""All files and their types; there is no way to any other."""


def add_routes(app: web.Application) -> None:
    """Serve the page at / and its files under /dashboard/."""

    def give(name: str) -> web.Response:
        # Read when asked for: a proxy that nobody looks at keeps none of it in memory.
        text = files(__name__).joinpath(name).read_text("utf-8")
        return web.Response(text=text, content_type=KINDS[name], charset="utf-8", headers=HEADERS)

    async def page(request: web.Request) -> web.Response:
        return give("index.html")

    async def file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in KINDS:
            raise web.HTTPNotFound(text=f"expected one of {', '.join(KINDS)}\n")
        return give(name)

    app.router.add_get("/", page)
    app.router.add_get("/dashboard/{name}", file)
