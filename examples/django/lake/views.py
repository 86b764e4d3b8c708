from datetime import datetime, timezone

from django.http import Http404, HttpResponse
from django.views.decorators.cache import cache_page

from lake.reports import logger, temperatures, weekly_report


@cache_page(60 * 15)
def report(request, year: int = 2026):
    logger.info("computing the report for %d", year)
    rows = "".join(f"<tr><td>{depth} m<td>{value} &deg;C" for depth, value in enumerate(temperatures(year)))
    computed = datetime.now(timezone.utc).isoformat()
    return HttpResponse(f"<!doctype html><title>Lake {year}</title><h1>The lake in {year}</h1>"
                        f"<p>Computed at {computed}.<table>{rows}</table>")


def weekly(request, year: int, week: int):
    if not 1 <= week <= 53:
        raise Http404
    return HttpResponse(weekly_report(year, week))


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"Your visit number {request.session['visits']}")
