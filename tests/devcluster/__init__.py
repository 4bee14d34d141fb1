"""Tests of devcluster: pure ones, ones with a control plane (`integration`) and ones as root
(`cluster`).
"""
