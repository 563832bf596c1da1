"""The list of questions, the form of one, its results, and the vote."""

from django.db.models import F
from django.http import HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views import generic

from .models import Choice, Question


class PublishedQuestions:
    """Leaves out questions whose date lies in the future."""

    def get_queryset(self):
        """Return the published questions."""
        return Question.objects.filter(pub_date__lte=timezone.now())


class IndexView(generic.ListView):
    """The newest questions."""

    template_name = "polls/index.html"
    context_object_name = "latest_question_list"

    def get_queryset(self):
        """Return five of them."""
        return Question.objects.filter(pub_date__lte=timezone.now()).order_by("-pub_date")[:5]


class DetailView(PublishedQuestions, generic.DetailView):
    """The form of a question."""

    model = Question
    template_name = "polls/detail.html"


class ResultsView(PublishedQuestions, generic.DetailView):
    """The votes of a question."""

    model = Question
    template_name = "polls/results.html"


def vote(request, question_id):
    """Count a vote."""
    question = get_object_or_404(Question, pk=question_id)
    try:
        choice = question.choice_set.get(pk=request.POST["choice"])
    except (KeyError, Choice.DoesNotExist):
        context = {"question": question, "error_message": "Choose one of the answers."}
        return render(request, "polls/detail.html", context)
    choice.votes = F("votes") + 1
    choice.save()
    return HttpResponseRedirect(reverse("polls:results", args=(question.pk,)))
