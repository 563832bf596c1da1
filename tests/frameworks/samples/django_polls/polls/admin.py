"""Questions in the admin, with their choices on the same page."""

from django.contrib import admin

from .models import Choice, Question


class ChoiceInline(admin.TabularInline):
    """Choices below their question."""

    model = Choice
    extra = 2


@admin.register(Question)
class QuestionAdmin(admin.ModelAdmin):
    """Questions."""

    inlines = (ChoiceInline,)
    list_display = ("question_text", "pub_date")
    list_filter = ("pub_date",)
    search_fields = ("question_text",)
