from django.urls import path

from lake.views import report, visits, weekly

urlpatterns = [path("", report), path("visits/", visits), path("<int:year>/", report), path("<int:year>/week/<int:week>/", weekly)]
