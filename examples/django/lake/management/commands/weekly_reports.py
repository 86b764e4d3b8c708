from django.core.management.base import BaseCommand

from lake.reports import weekly_report


class Command(BaseCommand):
    help = "Computes the reports of all weeks of a year, those that are not there yet; for a job that runs once a week."

    def add_arguments(self, parser):
        parser.add_argument("year", type=int)

    def handle(self, *args, year: int, **options):
        size = sum(len(weekly_report(year, week)) for week in range(1, 53))
        self.stdout.write(f"The reports of 52 weeks of {year} are there: {size:,} bytes")
