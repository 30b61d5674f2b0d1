import unittest

from textkit import initials, slugify


class Slugify(unittest.TestCase):
    def test_joins_words_by_hyphens(self):
        self.assertEqual(slugify("Hello, World!"), "hello-world")

    def test_drops_accents(self):
        self.assertEqual(slugify("Crème brûlée"), "creme-brulee")


class Initials(unittest.TestCase):
    def test_takes_the_first_letter_of_each_word(self):
        self.assertEqual(initials("grace brewster hopper"), "GBH")


if __name__ == "__main__":
    unittest.main()
