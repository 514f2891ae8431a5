"""Compare learning policies on real photos: does the accuracy really increase?"""
