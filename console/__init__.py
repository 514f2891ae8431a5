"""The console: Gleaner in a browser, one process that is a client of the broker like any other.

It subscribes to results, status, events, releases and policies, reads the dataset through `cloud/dataset`,
and sends labels as Feedback. Pages are rendered here; a little script (htmx and `static/console.js`) replaces
parts of them when server-sent events announce a change. There is no build step and no outside
address.

To add a page:

1. `console/pages/NAME.py`: async endpoints that end with `render(request, "NAME.html", {…})`, and `PAGE`, a
   `Page` with its path, title, icon and routes. `console_of(request)` gives everything that an endpoint may
   use. An endpoint is open to viewers; `@requires("reviewer")` or `@requires("operator")` asks for more. Each
   request that changes something is a POST: it is refused without the CSRF token, which `base.html` gives to
   htmx, and which a plain form carries as `{{ csrf_field() }}`. `form(request)` has the fields of a POST.
   Blocking work, such as reading the dataset, goes through `asyncio.to_thread`. What a user changes is
   recorded with `await console_of(request).audit.record(request, "policy.set", node=…)`, before it is done.
2. `console/templates/NAME.html` extends `base.html`; a part that htmx fetches alone is `NAME/_part.html`.
   Every `{{ value }}` is escaped, also against control and bidirectional characters, and cut; put names that
   people chose in `<bdi>`, and `{{ value | exact }}` where a form must send them back as they are. No inline
   script, style or `on…=` attribute: the Content-Security-Policy forbids them.
   `hx-trigger="live-results from:body"` fetches a part again when results arrived; the kinds are in
   `console/live/broadcast.py`. Icons are in `_icons.html`.
3. Name it in `PAGES` of `console/pages/__init__.py`: the navigation and the browser tests take it from there.
4. Texts: `_("…")` or `{% trans %}` in templates, `translator(request).gettext("…")` in Python, `N_("…")` for
   a constant. What others said, such as a reason or an error, is shown as `{{ reason | said }}`, and a code
   of the contract by a filter of `console/web/words.py`. `make catalogue` brings all of them into
   `console/locale/*/LC_MESSAGES/console.po`; translate them there.
5. `tests/console/test_pages.py` opens it in a browser at 390 and 1280 px and counts axe-core's violations.
"""
