from django.urls import path

from lake.views import report

urlpatterns = [path("", report), path("<int:year>/", report)]
