"""kubectl explain, over both documents that it can read."""
import unittest

from cluster import Cluster


class Explain(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def test_fields_are_described_with_their_types(self):
        text = self.cluster.kubectl("explain", "pod.spec.containers")
        for want in ("FIELD: containers <[]Container>", "image\t<string>", "Image to run", "One container:",
                     "name\t<string> -required-", "enum: Always"):
            self.assertIn(want, text)
        self.assertIn("replicas\t<integer>", self.cluster.kubectl("explain", "deployment.spec"))
        self.assertIn("matchLabels\t<map[string]string>", self.cluster.kubectl("explain", "deploy", "--recursive"))

    def test_the_protobuf_document_says_the_same(self):
        text = self.cluster.kubectl("explain", "deployment.spec", "--output=plaintext-openapiv2")
        self.assertIn("replicas\t<integer>", text)
        self.assertIn("selector\t<Object> -required-", text)
        self.assertIn("How many pods shall run", text)

    def test_a_text_of_its_own_wins_over_the_one_for_many_types(self):
        text = self.cluster.kubectl("explain", "deployment.spec.strategy")
        for want in ("RollingUpdate when not set", "Recreate ends all old pods", "only with RollingUpdate"):
            self.assertIn(want, text)
        self.assertIn("sort of object", self.cluster.kubectl("explain", "cronjob.kind"))
        # TypedLocalObjectReference has a text for its own kind
        self.assertIn("Kind of the object.", self.cluster.kubectl("explain", "pvc.spec.dataSource.kind"))

    def test_what_is_not_there_is_an_error(self):
        code, text = self.cluster.kubectl("explain", "pod.spec.nothing", ok=False)
        self.assertNotEqual(code, 0)
        self.assertIn("nothing", text)


if __name__ == "__main__":
    unittest.main()
