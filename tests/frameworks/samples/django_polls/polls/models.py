"""Questions and their choices."""

from django.db import models


class Question(models.Model):
    """A question with a date of publication."""

    question_text = models.CharField(max_length=200)
    pub_date = models.DateTimeField("date published")

    def __str__(self):
        """Return its text."""
        return self.question_text


class Choice(models.Model):
    """One answer to a question, and its votes."""

    question = models.ForeignKey(Question, on_delete=models.CASCADE)
    choice_text = models.CharField(max_length=200)
    votes = models.IntegerField(default=0)

    def __str__(self):
        """Return its text."""
        return self.choice_text
